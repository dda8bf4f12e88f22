"""Keras, the functional way: residual blocks with batch normalization, global pooling, and SGD with momentum."""

import numpy as np
from begin_keras import keras
from ending import Training, steps
from keras.layers import Activation, BatchNormalization, Conv2D, Dense, GlobalAveragePooling2D, Input, add

keras.backend.set_image_data_format("channels_first")
np.random.seed(1)
random = np.random.RandomState(2)


def block(x, width):
    y = Activation("relu")(BatchNormalization(axis=1)(Conv2D(width, (3, 3), padding="same")(x)))
    y = BatchNormalization(axis=1)(Conv2D(width, (3, 3), padding="same")(y))
    return Activation("relu")(add([x, y]))


inputs = Input((3, 24, 24))
x = Conv2D(16, (3, 3), padding="same")(inputs)
for _ in range(3):
    x = block(x, 16)
outputs = Dense(10, activation="softmax")(GlobalAveragePooling2D()(x))
model = keras.Model(inputs, outputs)
model.compile(loss="categorical_crossentropy", optimizer=keras.optimizers.SGD(0.05, momentum=0.9, nesterov=True))

images = random.rand(128, 3, 24, 24).astype("float32")
labels = keras.utils.to_categorical(random.randint(10, size=128), 10)
training = Training()
for i in range(steps(8)):
    part = slice(i * 32 % 128, i * 32 % 128 + 32)
    training.step(model.train_on_batch, images[part], labels[part])
training.finish([*model.get_weights(), model.predict(images[:32])])
