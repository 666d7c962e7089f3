"""A training loop of one's own: data, network, session, steps, error."""

import numpy as np

import minialex
from minialex.engine.schedule import epoch_rates
from minialex.evaluation.errors import evaluate

BATCH, EPOCHS = 32, 4

images = minialex.data.load("shapes", train_images=4000, validation_images=500)
session = minialex.new_session(minialex.load_recipe("shapes"), images)  # AlexNet in two columns, for 32 × 32 pixels
rates = epoch_rates(session.recipe, epoch=1, errors=[])  # learning rate, and how far colours are shifted
random = np.random.default_rng(0)

step = 0
for epoch in range(1, EPOCHS + 1):
    order = random.permutation(len(images.train))
    for first in range(0, len(order), BATCH):
        chosen = order[first : first + BATCH]
        feed = session.upload(images.train.read(chosen), images.train.labels[chosen], step, rates)
        outcome = session.finish(session.start(feed))  # crops, reflects, goes forward and back, updates
        step += 1
    error = evaluate([session], images.validation).error(top=1)
    print(f"epoch {epoch}: loss of the last step {outcome.loss:.2f}, validation error {error:.0%}")

np.savez("weights.npz", **session.weights())
