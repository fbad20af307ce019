"""The API and the pages of the reservation service."""
