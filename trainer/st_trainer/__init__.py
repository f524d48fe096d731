"""The trainer: the only package that imports torch.

``cli``         the ``st-train`` command
``run``         one run from a specification to its results
``loop``        the training loop
``session``     what a run holds in memory, and what a checkpoint keeps of it
``families/``   one file a model family, one registry
``data/``       samples, captions and the order in which they are seen
``objectives/`` how noise, timestep and target are made
``techniques/`` what is done beside the loss, such as the average of the weights
``pictures/``   sample grids and the loss curve
``quantization/`` frozen weights in fewer bits
``execution/``  recomputation, offloading, compilation, code of attention
``journal``     the events that the worker ships
"""

from st_trainer.quantization.libraries import hide_libraries

hide_libraries()
