"""Learn: lessons in which a guess comes first, and the answer is computed live."""

from dashboard.learn.page import learn

learn()
