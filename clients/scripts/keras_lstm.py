"""Keras: an LSTM over an embedding, run by Scan, and a masked input; trained by Adam."""

import numpy as np
from begin_keras import keras
from ending import Training, steps
from keras.layers import LSTM, Dense, Embedding

np.random.seed(1)
random = np.random.RandomState(2)
WORDS, LENGTH = 2000, 40
model = keras.Sequential(
    [
        Embedding(WORDS, 64, mask_zero=True),
        LSTM(64, dropout=0.1, recurrent_dropout=0.1),
        Dense(1, activation="sigmoid"),
    ]
)
model.compile(loss="binary_crossentropy", optimizer="adam")

sentences = random.randint(1, WORDS, size=(128, LENGTH))
for row, length in enumerate(random.randint(5, LENGTH, size=128)):
    sentences[row, : LENGTH - length] = 0
labels = (sentences % 7 == 3).any(axis=1).astype("float32")
training = Training()
for i in range(steps(8)):
    part = slice(i * 32 % 128, i * 32 % 128 + 32)
    training.step(model.train_on_batch, sentences[part], labels[part])
training.finish([*model.get_weights(), model.predict(sentences[:32])])
