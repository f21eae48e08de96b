"""The formats: each module here has one as `FORMAT`, or several as `FORMATS`, and is found by that."""
