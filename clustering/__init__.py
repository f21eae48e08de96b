"""Clusters of embeddings, and near-duplicates within them; balance itself is a rule (`manifests/balance.py`)."""
