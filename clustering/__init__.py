"""Clusters of embeddings, and near-duplicates within them. Balancing is a rule (`manifests/balance.py`)."""
