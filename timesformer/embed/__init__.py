"""What a model makes of videos before its last layer: features, their neighbours, their picture."""

METHODS = ("tsne", "pca")  # of laying features into a plane; `projection` has them
LEAST_VIDEOS = 5  # of fewer there is no picture
BATCH = 8  # videos that a model gets at once
