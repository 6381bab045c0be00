"""GStreamer's webrtcbin for the end-to-end tests: libnice, OpenSSL and libsrtp.

Requests and answers are JSON lines on standard input and output, as in aiortc_party.py; the methods
are those of page.js as far as they exist here. Run by the system's Python, for its GObject bindings.
"""

import json
import math
import os
import struct
import sys
import threading
import time

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstSdp", "1.0")
gi.require_version("GstWebRTC", "1.0")
from gi.repository import GLib, Gst, GstSdp, GstWebRTC  # noqa: E402

RATE = 48000
LISTEN_SAMPLES = 8192
REACHED_S = 20
OPUS = "application/x-rtp,media=audio,encoding-name=OPUS,payload=96,clock-rate=48000"


class Peer:
    """One webrtcbin that sends a tone and listens."""

    def __init__(self):
        self.heard = bytearray()
        self.lock = threading.Lock()
        self.pipe = Gst.parse_launch(
            "webrtcbin name=rtc bundle-policy=max-bundle latency=100 "
            "audiotestsrc name=tone is-live=true wave=sine ! "
            f"audio/x-raw,rate={RATE},channels=1 ! opusenc ! rtpopuspay pt=96 ! {OPUS} ! rtc."
        )
        self.rtc = self.pipe.get_by_name("rtc")
        self.tone = self.pipe.get_by_name("tone")
        # libnice leaves the loopback interface out unless it is named. The agent comes without a
        # reference of ours, so it must not be let go.
        self.ice = self.rtc.get_property("ice-agent")
        self.ice.emit("add-local-ip-address", "127.0.0.1")
        self.rtc.connect("pad-added", self.on_pad)
        self.speak(0)

    def on_pad(self, _, pad):
        if pad.direction != Gst.PadDirection.SRC:
            return
        sink = Gst.parse_bin_from_description(
            "rtpopusdepay ! opusdec ! audioconvert ! audioresample ! "
            f"audio/x-raw,format=S16LE,rate={RATE},channels=1 ! "
            "appsink name=ear emit-signals=true sync=false",
            True,
        )
        sink.get_by_name("ear").connect("new-sample", self.on_sample)
        self.pipe.add(sink)
        sink.sync_state_with_parent()
        pad.link(sink.get_static_pad("sink"))

    def on_sample(self, ear):
        buffer = ear.emit("pull-sample").get_buffer()
        with self.lock:
            self.heard += buffer.extract_dup(0, buffer.get_size())
            del self.heard[: -2 * LISTEN_SAMPLES]
        return Gst.FlowReturn.OK

    def promised(self, signal, *arguments):
        promise = Gst.Promise.new()
        self.rtc.emit(signal, *arguments, promise)
        if promise.wait() != Gst.PromiseResult.REPLIED:
            raise RuntimeError(f"{signal} failed")
        return promise

    def created(self, kind, name):
        """A new description; what a reply holds lives no longer than its promise."""
        promise = self.promised(f"create-{name}", None)
        reply = promise.get_reply()
        description = reply.get_value(name)
        return described(kind, description.sdp.as_text())

    def speak(self, frequency=0, level_dbfs=-12):
        self.tone.set_property("freq", frequency or 440)
        self.tone.set_property("volume", 10 ** (level_dbfs / 20) if frequency else 0)
        return {}

    def remote(self, kind, sdp):
        self.promised("set-remote-description", described(kind, sdp))

    def local(self, description):
        self.promised("set-local-description", description)
        gathered = GstWebRTC.WebRTCICEGatheringState.COMPLETE
        until(lambda: self.rtc.get_property("ice-gathering-state") == gathered, "candidates")
        return {"sdp": self.rtc.get_property("local-description").sdp.as_text()}

    def offer(self, frequency=0):
        self.speak(frequency)
        self.pipe.set_state(Gst.State.PLAYING)
        # The m-line comes from the caps of the sending pad.
        until(lambda: self.rtc.get_static_pad("sink_0").get_current_caps(), "a stream to offer")
        return self.local(self.created(GstWebRTC.WebRTCSDPType.OFFER, "offer"))

    def answer(self, sdp, frequency=0):
        self.speak(frequency)
        self.pipe.set_state(Gst.State.PLAYING)
        until(lambda: self.rtc.get_static_pad("sink_0").get_current_caps(), "a stream")
        self.remote(GstWebRTC.WebRTCSDPType.OFFER, sdp)
        return self.local(self.created(GstWebRTC.WebRTCSDPType.ANSWER, "answer"))

    def accept(self, sdp):
        self.remote(GstWebRTC.WebRTCSDPType.ANSWER, sdp)
        return {}

    def connected(self):
        wanted = GstWebRTC.WebRTCPeerConnectionState.CONNECTED
        until(lambda: self.rtc.get_property("connection-state") == wanted, "connected")
        return {}

    def listen(self, frequencies):
        with self.lock:
            count = len(self.heard) // 2
            samples = struct.unpack(f"<{count}h", self.heard[: 2 * count])
        return {"levels_dbfs": [level(samples, hertz) for hertz in frequencies]}

    def close(self):
        self.pipe.set_state(Gst.State.NULL)
        return {}


def described(kind, sdp):
    _, message = GstSdp.SDPMessage.new_from_text(sdp)
    return GstWebRTC.WebRTCSessionDescription.new(kind, message)


def until(reached, what):
    deadline = time.monotonic() + REACHED_S
    while not reached():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {REACHED_S} s: {what}")
        time.sleep(0.01)


def level(samples, hertz):
    """Goertzel under a Hann window; a full-scale sine has 0 dBFS."""
    step = 2 * math.pi * hertz / RATE
    factor, before, last = 2 * math.cos(step), 0.0, 0.0
    size = max(len(samples), 1)
    for at, sample in enumerate(samples):
        window = 0.5 - 0.5 * math.cos(2 * math.pi * at / size)
        before, last = last, sample / 32768 * window + factor * last - before
    power = last * last + before * before - factor * last * before
    amplitude = 4 * math.sqrt(max(power, 0.0)) / size
    return max(20 * math.log10(amplitude), -150.0) if amplitude > 0 else -150.0


def answer(peers, request):
    method, params = request["method"], request.get("params") or {}
    if method == "about":
        return {"pid": os.getpid(), "version": Gst.version_string()}
    if method == "open":
        name = f"bin-{len(peers) + 1}"
        peers[name] = Peer()
        return {"peer": name}
    return getattr(peers[params.pop("peer")], method)(**params)


def main():
    Gst.init(None)
    threading.Thread(target=GLib.MainLoop().run, daemon=True).start()
    peers = {}
    for line in sys.stdin:
        request = json.loads(line)
        try:
            reply = {"id": request["id"], "result": answer(peers, request)}
        except Exception as error:  # whatever it is, the test shall read it
            reply = {"id": request["id"], "error": f"{type(error).__name__}: {error}"}
        sys.stdout.write(json.dumps(reply) + "\n")
        sys.stdout.flush()
    os._exit(0)


main()
