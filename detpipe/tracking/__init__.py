"""Numbers of trainings for TensorBoard, MLflow, Weights & Biases and Trackio, by a process that reads the logs."""
