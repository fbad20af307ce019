"""The stores of the service's state. One contract suite tests all of them."""
