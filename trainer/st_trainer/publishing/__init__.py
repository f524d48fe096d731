"""Publishing: what a training leaves, sent to Hugging Face's hub or a bucket."""
