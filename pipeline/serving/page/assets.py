"""The page's own style and script."""

from __future__ import annotations

STYLE = """
.vl3-frames { display: grid; grid-template-columns: repeat(auto-fill, minmax(132px, 1fr)); gap: 8px; }
.vl3-frames { margin-bottom: 8px; }
.vl3-frames figure { margin: 0; font-size: 12px; text-align: center; }
.vl3-frames img { width: 100%; border-radius: 4px; display: block; image-rendering: auto; }
.vl3-frames button { padding: 0; border: 0; background: none; cursor: pointer; display: block; width: 100%; }
.vl3-film, .vl3-picture { width: 100%; max-height: 300px; object-fit: contain; margin-bottom: 8px; }
.vl3-times { margin-bottom: 8px; }
.vl3-times button, .vl3-camera button { border: 1px solid currentColor; border-radius: 6px; padding: 2px 8px;
  margin: 2px; cursor: pointer; font-variant-numeric: tabular-nums; }
.vl3-note { font-size: 13px; opacity: .85; padding: 2px 4px; }
.vl3-error { color: #b42318; background: #fee4e2; border-radius: 6px; padding: 6px 10px; }
.dark .vl3-error { color: #fecdca; background: #55160c; }
.vl3-picture { max-height: none; }
.vl3-camera video[hidden] { display: none; }
.vl3-camera video { max-width: 240px; border-radius: 6px; }
h1 { margin: 0; }
footer { display: none !important; }
"""

HEAD = """
<script>
// A button with a time jumps there in its film.
document.addEventListener('click', event => {
  const button = event.target.closest && event.target.closest('[data-time]');
  if (!button) return;
  const film = document.querySelector(`video[data-film="${Number(button.dataset.film)}"]`);
  if (film) { film.currentTime = Number(button.dataset.time); film.scrollIntoView({block: 'nearest'}); }
});
// The camera: its picture becomes a file of the question, as if it was dropped there.
document.addEventListener('click', async event => {
  const button = event.target.closest && event.target.closest('.vl3-camera button');
  if (!button) return;
  const box = button.parentElement, video = box.querySelector('video');
  if (!video.srcObject) {
    try { video.srcObject = await navigator.mediaDevices.getUserMedia({video: true}); }
    catch (error) { button.textContent = 'no camera'; return; }
    video.hidden = false; await video.play(); button.textContent = 'Take the picture'; return;
  }
  const canvas = document.createElement('canvas');
  canvas.width = video.videoWidth; canvas.height = video.videoHeight;
  canvas.getContext('2d').drawImage(video, 0, 0);
  video.srcObject.getTracks().forEach(track => track.stop());
  video.srcObject = null; video.hidden = true; button.textContent = 'Camera';
  canvas.toBlob(blob => {
    const files = new DataTransfer();
    files.items.add(new File([blob], 'camera.jpg', {type: 'image/jpeg'}));
    const input = document.querySelector('#vl3-question input[type=file]');
    input.files = files.files;
    input.dispatchEvent(new Event('change', {bubbles: true}));
  }, 'image/jpeg', 0.92);
});
</script>
"""
