"""What is trained of a model: every weight, or small matrices beside them; and their files."""
