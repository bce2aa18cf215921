"""A trained model at work: from files to answers, features and exported models."""
