"""The trainer: from published shards and annotations to a VideoLLaMA3 checkpoint, in stages."""
