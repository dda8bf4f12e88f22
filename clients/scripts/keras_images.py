"""Keras: a small convolutional network on images of 32 x 32, with pooling, batch normalization and dropout."""

import numpy as np
from begin_keras import keras
from ending import Training, steps
from keras.layers import Activation, BatchNormalization, Conv2D, Dense, Dropout, Flatten, MaxPooling2D

np.random.seed(1)
random = np.random.RandomState(2)
model = keras.Sequential(
    [
        Conv2D(32, (3, 3), padding="same", input_shape=(3, 32, 32), data_format="channels_first"),
        BatchNormalization(axis=1),
        Activation("relu"),
        Conv2D(32, (3, 3), data_format="channels_first"),
        Activation("relu"),
        MaxPooling2D(data_format="channels_first"),
        Dropout(0.25, seed=3),
        Flatten(),
        Dense(128, activation="relu"),
        Dropout(0.5, seed=4),
        Dense(10, activation="softmax"),
    ]
)
model.compile(loss="categorical_crossentropy", optimizer="adam", metrics=["accuracy"])

images = random.rand(256, 3, 32, 32).astype("float32")
labels = keras.utils.to_categorical(random.randint(10, size=256), 10)
training = Training()
for i in range(steps(10)):
    part = slice(i * 64 % 256, i * 64 % 256 + 64)
    training.step(model.train_on_batch, images[part], labels[part])
loss, accuracy = model.evaluate(images, labels, batch_size=64, verbose=0)
print("after training: loss", loss, "accuracy", accuracy)
training.finish([*model.get_weights(), model.predict(images[:64])])
