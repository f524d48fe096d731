"""What alters the step beside the loss, one file a technique."""
