"""A grid search with scikit-learn, on its 8×8 digits: the L2 coefficient and the learning rate of a dense network."""

import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import GridSearchCV, train_test_split

from photoflux import PhotoFluxClassifier

digits = load_digits()
images = np.round(digits.images * (255 / 16)).astype(np.uint8)  # 0 to 16 there, 0 to 255 here
kept, held, kept_labels, held_labels = train_test_split(
    images, digits.target, train_size=400, stratify=digits.target, random_state=0
)

search = GridSearchCV(
    PhotoFluxClassifier("dense_l2", epochs=5, random_state=0),
    {"l2": [0.0, 0.01], "learning_rate": [0.001, 0.01]},
    cv=2,
)
search.fit(kept, kept_labels)

for settings, mean in zip(search.cv_results_["params"], search.cv_results_["mean_test_score"], strict=True):
    print(f"{settings}: {mean:.3f}")
print(f"best: {search.best_params_}, accuracy on {len(held)} other digits: {search.score(held, held_labels):.3f}")
