"""Keras: two layers of GRU with their loops unrolled into one graph, and a stateful second call with another batch."""

import numpy as np
from begin_keras import keras
from ending import Training, steps
from keras.layers import GRU, Dense, TimeDistributed

np.random.seed(1)
random = np.random.RandomState(2)
LENGTH, WIDTH = 12, 24
model = keras.Sequential(
    [
        GRU(64, return_sequences=True, unroll=True, reset_after=False, batch_input_shape=(32, LENGTH, WIDTH), stateful=True),
        GRU(64, return_sequences=True, unroll=True, reset_after=False),
        TimeDistributed(Dense(WIDTH)),
    ]
)
model.compile(loss="mse", optimizer=keras.optimizers.Adagrad(clipnorm=1.0))

waves = np.sin(np.arange(32 * (LENGTH + 1) * WIDTH).reshape(32, LENGTH + 1, WIDTH) * 0.1 + random.rand(32, 1, WIDTH)).astype("float32")
training = Training()
for i in range(steps(8)):
    if i % 4 == 3:
        model.reset_states()
    training.step(model.train_on_batch, waves[:, :-1], waves[:, 1:])
training.finish([*model.get_weights(), model.predict(waves[:, 1:], batch_size=32)])
