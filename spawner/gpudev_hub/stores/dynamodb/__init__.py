"""The store in one table of DynamoDB."""
