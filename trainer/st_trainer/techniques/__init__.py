"""What alters the step beside the objective, one file a technique; ``technique`` has the events."""
