"""How noise, timestep, target and loss are made; ``objective`` says what each answers."""
