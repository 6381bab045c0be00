"""A WebRTC implementation beside the browser, and libsrtp, for the end-to-end tests.

Requests and answers are JSON lines on standard input and output: {"id", "method", "params"} ->
{"id", "result"} or {"id", "error"}. The methods on peers are those of page.js; `srtp_*` protect and
check packets with libsrtp, `stun` sends one binding request. The program ends when its input does.
"""

import asyncio
import base64
import collections
import contextvars
import fractions
import json
import math
import os
import socket
import struct
import sys
import time

import av
from aioice import ice, stun
from aiortc import RTCConfiguration, RTCPeerConnection, RTCSessionDescription
from aiortc.mediastreams import AudioStreamTrack, MediaStreamError
from pylibsrtp import Error as SrtpError
from pylibsrtp import Policy, Session

RATE = 48000
FRAME_SAMPLES = 960
LISTEN_SAMPLES = 8192
REACHED_S = 20

SUITES = {
    "AES_CM_128_HMAC_SHA1_80": Policy.SRTP_PROFILE_AES128_CM_SHA1_80,
    "AES_CM_128_HMAC_SHA1_32": Policy.SRTP_PROFILE_AES128_CM_SHA1_32,
    "AEAD_AES_128_GCM": Policy.SRTP_PROFILE_AEAD_AES_128_GCM,
    "AEAD_AES_256_GCM": Policy.SRTP_PROFILE_AEAD_AES_256_GCM,
}


# The addresses of the peer that gathers its candidates; None for those of the interfaces.
HOSTS = contextvars.ContextVar("hosts", default=None)
interface_addresses = ice.get_host_addresses
ice.get_host_addresses = lambda **kinds: HOSTS.get() or interface_addresses(**kinds)


class Tone(AudioStreamTrack):
    """A sine at the pace of the wall clock; frequency 0 is silence."""

    def __init__(self):
        super().__init__()
        self.frequency = 0.0
        self.amplitude = 0.25
        self.sample = 0
        self.start = None

    async def recv(self):
        if self.start is None:
            self.start = time.monotonic()
        due = self.start + self.sample / RATE
        await asyncio.sleep(max(0.0, due - time.monotonic()))
        step = 2 * math.pi * self.frequency / RATE
        peak = 32767 * self.amplitude if self.frequency else 0
        samples = (
            int(peak * math.sin(step * (self.sample + offset))) for offset in range(FRAME_SAMPLES)
        )
        frame = av.AudioFrame(format="s16", layout="mono", samples=FRAME_SAMPLES)
        frame.planes[0].update(struct.pack(f"<{FRAME_SAMPLES}h", *samples))
        frame.pts, frame.sample_rate = self.sample, RATE
        frame.time_base = fractions.Fraction(1, RATE)
        self.sample += FRAME_SAMPLES
        return frame


class Peer:
    """One RTCPeerConnection that sends a tone and listens."""

    def __init__(self, hosts):
        self.pc = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        self.hosts = hosts
        self.tone = Tone()
        self.heard = collections.deque(maxlen=LISTEN_SAMPLES)
        self.states = []
        self.tasks = []

        @self.pc.on("track")
        def on_track(track):
            if track.kind == "audio":
                self.tasks.append(asyncio.ensure_future(self.hear(track)))

        @self.pc.on("connectionstatechange")
        def on_state():
            self.states.append(self.pc.connectionState)

    async def hear(self, track):
        try:
            while True:
                frame = await track.recv()
                data = bytes(frame.planes[0])
                channels = len(frame.layout.channels)
                count = frame.samples * channels
                samples = struct.unpack(f"<{count}h", data[: 2 * count])
                self.heard.extend(samples[::channels])
        except MediaStreamError:
            pass

    def speaks(self):
        return any(sender.track for sender in self.pc.getSenders())

    def speak(self, frequency=0, level_dbfs=-12):
        if not self.speaks():
            self.pc.addTrack(self.tone)
        self.tone.frequency = frequency or 0
        self.tone.amplitude = 10 ** (level_dbfs / 20)
        return {}

    async def offer(self, frequency=0, video=False, restart=False, direction=None):
        HOSTS.set(self.hosts)
        if not self.speaks():
            self.speak(frequency)
        if video and len(self.pc.getTransceivers()) < 2:
            self.pc.addTransceiver("video")
        if direction:
            self.pc.getTransceivers()[0].direction = direction
        assert not restart, "this implementation restarts ICE only as the answerer"
        await self.pc.setLocalDescription(await self.pc.createOffer())
        return {"sdp": self.pc.localDescription.sdp}

    async def answer(self, sdp, frequency=0):
        HOSTS.set(self.hosts)
        await self.pc.setRemoteDescription(RTCSessionDescription(sdp, "offer"))
        if not self.speaks():
            self.speak(frequency)
        await self.pc.setLocalDescription(await self.pc.createAnswer())
        return {"sdp": self.pc.localDescription.sdp}

    async def accept(self, sdp):
        await self.pc.setRemoteDescription(RTCSessionDescription(sdp, "answer"))
        return {}

    async def connected(self):
        deadline = time.monotonic() + REACHED_S
        while self.pc.connectionState != "connected":
            if time.monotonic() > deadline:
                raise TimeoutError(f"still {self.pc.connectionState} after {REACHED_S} s")
            await asyncio.sleep(0.01)
        return {}

    async def listen(self, frequencies):
        samples = list(self.heard)
        return {"levels_dbfs": [level(samples, hertz) for hertz in frequencies]}

    async def stats(self):
        found = {
            "connection": self.pc.connectionState,
            "ice": self.pc.iceConnectionState,
            "states": self.states,
        }
        for row in (await self.pc.getStats()).values():
            if row.type == "inbound-rtp":
                found["packets_received"] = row.packetsReceived
                found["packets_lost"] = row.packetsLost
            if row.type == "outbound-rtp":
                found["packets_sent"] = row.packetsSent
            if row.type == "remote-inbound-rtp":
                found["reported_lost"] = row.packetsLost
                found["rtt_s"] = row.roundTripTime
            if row.type == "remote-outbound-rtp":
                found["reported_sent"] = row.packetsSent
            if row.type == "transport":
                found["dtls"] = row.dtlsState
        return found

    async def close(self):
        await self.pc.close()
        return {}


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


class Libsrtp:
    """One direction under one master key."""

    def __init__(self, suite, key, sends):
        self.profile = SUITES[suite]
        self.key = base64.b64decode(key)
        self.sends = sends
        self.session = self.context(sends)

    def context(self, sends):
        kind = Policy.SSRC_ANY_OUTBOUND if sends else Policy.SSRC_ANY_INBOUND
        policy = Policy(key=self.key, ssrc_type=kind, srtp_profile=self.profile)
        policy.window_size = 128
        return Session(policy)

    def advance(self, ssrc, rollovers):
        """Brings the roll-over counter of a source to `rollovers`, by packets that nobody sees."""
        writer = self.session if self.sends else self.context(True)
        for sequence in [0x5000, 0xA000, 0xFFFF, 0x0000] * rollovers:
            packet = writer.protect(struct.pack("!BBHII", 0x80, 0, sequence, 0, ssrc) + b"\0" * 8)
            if not self.sends:
                self.session.unprotect(packet)

    def carry(self, packets, rtcp):
        name = ("protect" if self.sends else "unprotect") + ("_rtcp" if rtcp else "")
        return [self.one(getattr(self.session, name), packet) for packet in packets]

    @staticmethod
    def one(function, packet):
        try:
            return function(bytes.fromhex(packet)).hex()
        except SrtpError as error:
            return {"error": str(error)}


class Methods:
    def __init__(self):
        self.peers = {}
        self.contexts = []

    def about(self):
        return {"pid": os.getpid(), "version": "aiortc"}

    def open(self, hosts=None, **_):
        name = f"peer-{len(self.peers) + 1}"
        self.peers[name] = Peer(hosts)
        return {"peer": name}

    def srtp_open(self, suite, key, sends):
        self.contexts.append(Libsrtp(suite, key, sends))
        return {"context": len(self.contexts) - 1}

    def srtp_advance(self, context, ssrc, rollovers):
        self.contexts[context].advance(ssrc, rollovers)
        return {}

    def srtp_carry(self, context, packets, rtcp=False):
        return {"packets": self.contexts[context].carry(packets, rtcp)}

    async def stun(self, host, port, username, password, role="controlling", nominate=False):
        """One binding request; gives the class and code of the answer, or nothing for silence."""
        request = stun.Message(stun.Method.BINDING, stun.Class.REQUEST)
        request.attributes["USERNAME"] = username
        request.attributes["PRIORITY"] = 1845494271
        request.attributes["ICE-" + role.upper()] = 0x1122334455667788
        if nominate:
            request.attributes["USE-CANDIDATE"] = None
        request.add_message_integrity(password.encode())
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.settimeout(1)
            probe.sendto(bytes(request), (host, port))
            try:
                data = await asyncio.to_thread(probe.recv, 2048)
            except TimeoutError:
                return {}
        answer = stun.parse_message(data)
        return {
            "class": answer.message_class.name.lower(),
            "code": answer.attributes.get("ERROR-CODE", (0, ""))[0],
        }

    async def call(self, method, params):
        own = getattr(self, method, None)
        if own is None:
            own = getattr(self.peers[params.pop("peer")], method)
        result = own(**params)
        return await result if asyncio.iscoroutine(result) else result


async def answer(methods, line):
    request = json.loads(line)
    try:
        result = await methods.call(request["method"], request.get("params") or {})
        reply = {"id": request["id"], "result": result}
    except Exception as error:  # whatever it is, the test shall read it
        reply = {"id": request["id"], "error": f"{type(error).__name__}: {error}"}
    sys.stdout.write(json.dumps(reply) + "\n")
    sys.stdout.flush()


async def main():
    methods, tasks = Methods(), set()
    reader = asyncio.StreamReader(limit=16 * 1024 * 1024)
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        task = loop.create_task(answer(methods, line))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
    os._exit(0)


asyncio.run(main())
