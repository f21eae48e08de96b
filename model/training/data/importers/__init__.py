"""Importers: published data sets into records. A format is one small module, a function from rows to drafts."""
