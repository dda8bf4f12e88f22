"""Keras: sentences as word numbers, an embedding, a convolution over time, the greatest over time, and a verdict."""

import numpy as np
from begin_keras import keras
from ending import Training, steps
from keras.layers import Conv1D, Dense, Dropout, Embedding, GlobalMaxPooling1D

np.random.seed(1)
random = np.random.RandomState(2)
WORDS, LENGTH = 5000, 200
model = keras.Sequential(
    [
        Embedding(WORDS, 50, input_length=LENGTH),
        Dropout(0.2, seed=3),
        Conv1D(100, 3, activation="relu"),
        GlobalMaxPooling1D(),
        Dense(100, activation="relu"),
        Dropout(0.2, seed=4),
        Dense(1, activation="sigmoid"),
    ]
)
model.compile(loss="binary_crossentropy", optimizer="rmsprop", metrics=["accuracy"])

sentences = random.randint(WORDS, size=(256, LENGTH))
labels = (sentences < 50).any(axis=1).astype("float32")
training = Training()
for i in range(steps(10)):
    part = slice(i * 64 % 256, i * 64 % 256 + 64)
    training.step(model.train_on_batch, sentences[part], labels[part])
training.finish([*model.get_weights(), model.predict(sentences[:64])])
