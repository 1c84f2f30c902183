"""The commands that are the API's resources: each follows from an operation of the API."""
