"""How noise, timestep and target are made."""
