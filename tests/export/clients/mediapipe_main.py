"""Ask MediaPipe Tasks, in an environment of its own: mediapipe_main.py KIND FILE IMAGES.npy ANSWERS.npz.

Writes `scores` float32 (N, ...) in the order of `labels`; of an embedder the vectors, and their output's name. One file
per process: after a graph that failed, MediaPipe's next one hangs.
"""

import sys

import mediapipe as mp
import numpy as np
from mediapipe.tasks.python import BaseOptions, vision


def main() -> None:
    kind, file, images, answers = sys.argv[1:]
    pictures = [mp.Image(image_format=mp.ImageFormat.SRGB, data=np.ascontiguousarray(one)) for one in np.load(images)]
    options = BaseOptions(model_asset_path=file)
    labels, scores = {"classifier": classify, "segmenter": segment, "embedder": embed}[kind](options, pictures)
    np.savez(answers, labels=labels, scores=scores)


def classify(options: BaseOptions, pictures: list) -> tuple[list[str], np.ndarray]:
    scores, names = [], {}
    with vision.ImageClassifier.create_from_options(vision.ImageClassifierOptions(base_options=options)) as task:
        for picture in pictures:
            [found] = task.classify(picture).classifications
            names |= {one.index: one.category_name for one in found.categories}
            scores.append([one.score for one in sorted(found.categories, key=lambda one: one.index)])
    return [names[index] for index in sorted(names)], np.array(scores, np.float32)


def segment(options: BaseOptions, pictures: list) -> tuple[list[str], np.ndarray]:
    settings = vision.ImageSegmenterOptions(base_options=options, output_confidence_masks=True)
    with vision.ImageSegmenter.create_from_options(settings) as task:
        masks = [task.segment(picture).confidence_masks for picture in pictures]
        stacked = np.array([np.stack([one.numpy_view() for one in each], axis=-1) for each in masks])
        return list(task.labels), stacked.astype(np.float32)


def embed(options: BaseOptions, pictures: list) -> tuple[list[str], np.ndarray]:
    with vision.ImageEmbedder.create_from_options(vision.ImageEmbedderOptions(base_options=options)) as task:
        found = [task.embed(picture).embeddings[0] for picture in pictures]
    return [found[0].head_name], np.array([one.embedding for one in found], np.float32)


if __name__ == "__main__":
    main()
