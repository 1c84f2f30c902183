"""The commands for the API's resources: each is derived from an operation of the API."""
