"""How a step is carried out: recomputation, offloading, compilation, code of attention."""
