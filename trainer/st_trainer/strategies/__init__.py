"""How several processes share one model: whole in each, or spread over them."""
