"""Caffe's solvers in plain loops of numpy, line by line as sgd_solver.cpp and its neighbors have them."""

import math

import numpy as np


class Caffes:
    """An SGDSolver and those that derive from it, in numpy's float32."""

    def __init__(self, solver, params, lr_mult, decay_mult):
        self.s, self.iter, self.current_step = solver, 0, 0
        self.data = [np.array(a) for name in params for a in params[name]]
        self.lr = [m for name in params for m in lr_mult[name]]
        self.decay = [m for name in params for m in decay_mult[name]]
        self.diff = [np.zeros_like(a) for a in self.data]
        self.history = [np.zeros_like(a) for a in [*self.data, *self.data]]

    def learning_rate(self):
        s = self.s
        if s.lr_policy == "fixed":
            return s.base_lr
        if s.lr_policy == "step":
            self.current_step = self.iter // s.stepsize
            return s.base_lr * s.gamma**self.current_step
        if s.lr_policy == "exp":
            return s.base_lr * s.gamma**self.iter
        if s.lr_policy == "inv":
            return s.base_lr * (1 + s.gamma * self.iter) ** -s.power
        if s.lr_policy == "multistep":
            more = self.current_step < len(s.stepvalue)
            if more and self.iter >= s.stepvalue[self.current_step]:
                self.current_step += 1
            return s.base_lr * s.gamma**self.current_step
        if s.lr_policy == "poly":
            return s.base_lr * (1 - self.iter / s.max_iter) ** s.power
        return s.base_lr * (1 / (1 + math.exp(-s.gamma * (self.iter - s.stepsize))))

    def backward(self, gradients):
        """Add to the diffs; a blob whose lr_mult is 0 gets none."""
        for i, g in enumerate(a for name in gradients for a in gradients[name]):
            if self.lr[i] != 0:
                self.diff[i] = self.diff[i] + g

    def apply_update(self):
        rate = np.float32(self.learning_rate())
        self.clip_gradients()
        for i in range(len(self.data)):
            if self.s.iter_size != 1:
                self.diff[i] = self.diff[i] * np.float32(1 / self.s.iter_size)
            self.regularize(i)
            self.compute_update_value(i, np.float32(rate * self.lr[i]))
        for i in range(len(self.data)):
            self.data[i] = self.data[i] - self.diff[i]
            self.diff[i] = np.zeros_like(self.diff[i])
        self.iter += 1

    def clip_gradients(self):
        if self.s.clip_gradients < 0:
            return
        sumsq = sum(float((d * d).sum()) for d in self.diff)
        if math.sqrt(sumsq) > self.s.clip_gradients:
            scale = np.float32(self.s.clip_gradients / math.sqrt(sumsq))
            self.diff = [d * scale for d in self.diff]

    def regularize(self, i):
        local = np.float32(self.s.weight_decay * self.decay[i])
        if local:
            pull = self.data[i] if self.s.regularization_type == "L2" else np.sign(self.data[i])
            self.diff[i] = self.diff[i] + local * pull

    def compute_update_value(self, i, rate):
        s, g, h, offset = self.s, self.diff[i], self.history, len(self.data)
        momentum, delta = np.float32(s.momentum), np.float32(s.delta)
        if s.type == "SGD":
            h[i] = rate * g + momentum * h[i]
            self.diff[i] = h[i]
        elif s.type == "Nesterov":
            update = h[i]
            h[i] = rate * g + momentum * h[i]
            self.diff[i] = (1 + momentum) * h[i] - momentum * update
        elif s.type == "AdaGrad":
            h[i] = h[i] + g * g
            self.diff[i] = rate * (g / (np.sqrt(h[i]) + delta))
        elif s.type == "RMSProp":
            decay = np.float32(s.rms_decay)
            h[i] = (1 - decay) * (g * g) + decay * h[i]
            self.diff[i] = rate * (g / (np.sqrt(h[i]) + delta))
        elif s.type == "AdaDelta":
            h[i] = (1 - momentum) * (g * g) + momentum * h[i]
            update = g * np.sqrt((delta + h[offset + i]) / (delta + h[i]))
            h[offset + i] = (1 - momentum) * (update * update) + momentum * h[offset + i]
            self.diff[i] = rate * update
        elif s.type == "Adam":
            beta2, t = np.float32(s.momentum2), self.iter + 1
            h[i] = (1 - momentum) * g + momentum * h[i]
            h[offset + i] = (1 - beta2) * (g * g) + beta2 * h[offset + i]
            correction = np.sqrt(1 - beta2**t) / (1 - momentum**t)
            self.diff[i] = rate * correction * (h[i] / (np.sqrt(h[offset + i]) + delta))
