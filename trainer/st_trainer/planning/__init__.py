"""What a run will take, before its weights are there: bytes of each part, seconds of a step."""
