"""The chat page of `vl3syn serve`. `layout` needs gradio; all else does without."""
