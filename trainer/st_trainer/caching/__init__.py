"""What encoders make of samples and captions, kept on disk by its content."""
