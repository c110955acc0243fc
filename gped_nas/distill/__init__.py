"""Distillation: students are trained on what a stream of posterior samples says.

Shape letters, here and in all of the package: P students of a population, B examples of a batch,
M distillation inputs, D numbers of an input, J principal components, C classes, G numbers of a
target, U raw outputs, S posterior samples, T steps.

What a call does, in the order of the files:

    course.py       what students are trained on and how; students before their first step
    kernel.py       train: from step to step, with rungs, pruning and leaving in between
    layout.py       for each stretch between these: who is trained by which worker, in which bundle
    team.py         the workers of a layout

One step, in the order of the files:

    feed.py         gathers one batch for everybody: x (B, D), and what the teacher says there,
                    {target: (B, G)}, by the update rule; replay.py does both on a GPU
    training.py     hands it to each bundle and owns what follows
    fused_mlp.py    forward: one product for the first layers of all students of the bundle, then a
                    batched product for each group of equal shapes, to raw outputs (P, B, U)
    bundle.py       instead of it: students of other families go in turn, through autograd
    targets/layout.py   the loss of each student (P,), and the gradient by its raw outputs
    fused_mlp.py    backward, by hand, into one flat gradient
    buffers.py      where all parameters and gradients of a bundle lie, one number after the other
    optim.py        one update of the flat buffer, with a step size for each student
    pruning.py      in the first phase, now and then: the group lasso's proximal step
    training.py     in the second phase: the running average

Around it: trainee.py is a student between two layouts or two calls, checkpoint.py that student in a
file, components.py and centering.py the forms in which dense students are trained, student.py the
network that people get.
"""
