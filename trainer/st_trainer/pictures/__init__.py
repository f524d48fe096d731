"""What people look at, sample grids and the loss curve, drawn with Pillow."""
