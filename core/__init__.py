"""The ground floor: what several rooms need and none of them owns.

It imports no other room, no Ray, and no torch when it is imported.
"""
