"""How similar tasks are, by what a frozen encoder makes of their images, text inputs and text outputs."""

from avalanche_cit.similarity.encoders import (
    ImageEncoder,
    OpenClip,
    SentenceEncoder,
    TextEncoder,
    TokenEmbedding,
    VisionTower,
    make_image_encoder,
    make_text_encoder,
)
from avalanche_cit.similarity.fusion import cosines, fuse, standardise, task_similarity
from avalanche_cit.similarity.seen_tasks import SeenTasks
from avalanche_cit.similarity.task_embedding import TaskEmbedding, embed_task, embedding_cache

__all__ = [
    "ImageEncoder",
    "OpenClip",
    "SeenTasks",
    "SentenceEncoder",
    "TaskEmbedding",
    "TextEncoder",
    "TokenEmbedding",
    "VisionTower",
    "cosines",
    "embed_task",
    "embedding_cache",
    "fuse",
    "make_image_encoder",
    "make_text_encoder",
    "standardise",
    "task_similarity",
]
