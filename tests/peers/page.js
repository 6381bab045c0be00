// The party inside a page: one RTCPeerConnection that sends a tone and listens.
window.party = (() => {
  const LISTEN_SAMPLES = 8192;
  const REACHED_MS = 20_000;
  let pc, audio, oscillator, gain, analyser, sender;
  const states = [];

  function open({ bundle_policy }) {
    audio = new AudioContext({ sampleRate: 48000 });
    pc = new RTCPeerConnection({ iceServers: [], bundlePolicy: bundle_policy ?? "balanced" });
    pc.ontrack = ({ track }) => track.kind === "audio" && hear(track);
    pc.onconnectionstatechange = () => states.push(pc.connectionState);
    return {};
  }

  function hear(track) {
    const stream = new MediaStream([track]);
    // Without an element that plays it, Chromium does not run a remote track.
    const element = new Audio();
    element.srcObject = stream;
    element.play();
    analyser = new AnalyserNode(audio, { fftSize: LISTEN_SAMPLES });
    audio.createMediaStreamSource(stream).connect(analyser);
  }

  function speak({ frequency, level_dbfs = -12 }) {
    if (!oscillator) {
      const destination = audio.createMediaStreamDestination();
      oscillator = new OscillatorNode(audio, { frequency: frequency ?? 440 });
      gain = new GainNode(audio, { gain: 0 });
      oscillator.connect(gain).connect(destination);
      oscillator.start();
      sender = pc.addTrack(destination.stream.getAudioTracks()[0], destination.stream);
    }
    oscillator.frequency.value = frequency ?? 440;
    gain.gain.value = frequency ? 10 ** (level_dbfs / 20) : 0;
    return {};
  }

  // Sends nothing any more, not even silence.
  async function hush() {
    await sender.replaceTrack(null);
    return {};
  }

  async function describe(description) {
    await pc.setLocalDescription(description);
    await until(() => pc.iceGatheringState === "complete", "candidates");
    return { sdp: pc.localDescription.sdp };
  }

  async function offer({ frequency, video, restart, direction }) {
    if (!sender) speak({ frequency });
    if (video && pc.getTransceivers().length < 2) pc.addTransceiver("video");
    if (direction) pc.getTransceivers()[0].direction = direction;
    return describe(await pc.createOffer({ iceRestart: !!restart }));
  }

  async function answer({ sdp, frequency }) {
    await pc.setRemoteDescription({ type: "offer", sdp });
    if (!sender) speak({ frequency });
    return describe(await pc.createAnswer());
  }

  async function accept({ sdp }) {
    await pc.setRemoteDescription({ type: "answer", sdp });
    return {};
  }

  async function connected() {
    await until(() => pc.connectionState === "connected", "connected");
    return {};
  }

  async function listen({ frequencies }) {
    const samples = new Float32Array(LISTEN_SAMPLES);
    if (analyser) analyser.getFloatTimeDomainData(samples);
    return { levels_dbfs: frequencies.map((hertz) => level(samples, hertz, audio.sampleRate)) };
  }

  // Goertzel under a Hann window; a full-scale sine has 0 dBFS.
  function level(samples, hertz, rate) {
    const step = (2 * Math.PI * hertz) / rate;
    let before = 0;
    let last = 0;
    samples.forEach((sample, at) => {
      const window = 0.5 - 0.5 * Math.cos((2 * Math.PI * at) / samples.length);
      [before, last] = [last, sample * window + 2 * Math.cos(step) * last - before];
    });
    const power = last * last + before * before - 2 * Math.cos(step) * last * before;
    const amplitude = (4 * Math.sqrt(Math.max(power, 0))) / samples.length;
    return Math.max(20 * Math.log10(amplitude), -150);
  }

  async function stats() {
    const found = { connection: pc.connectionState, ice: pc.iceConnectionState, states };
    for (const row of (await pc.getStats()).values()) {
      if (row.type === "inbound-rtp" && row.kind === "audio") {
        found.packets_received = row.packetsReceived;
        found.packets_lost = row.packetsLost;
        found.packets_discarded = row.packetsDiscarded;
        found.audio_level = row.audioLevel;
        found.audio_energy = row.totalAudioEnergy;
        found.samples = row.totalSamplesReceived;
        found.concealed_samples = row.concealedSamples;
        found.ssrc = row.ssrc;
      }
      if (row.type === "outbound-rtp" && row.kind === "audio") found.packets_sent = row.packetsSent;
      if (row.type === "remote-inbound-rtp") {
        found.reported_lost = row.packetsLost;
        found.rtt_s = row.roundTripTime;
      }
      if (row.type === "remote-outbound-rtp") found.reported_sent = row.packetsSent;
      if (row.type === "transport") {
        found.dtls = row.dtlsState;
        found.dtls_role = row.dtlsRole;
        found.srtp_cipher = row.srtpCipher;
        found.ice_role = row.iceRole;
        found.pair_changes = row.selectedCandidatePairChanges;
      }
    }
    return found;
  }

  async function dtmf({ tones, duration_ms = 100, gap_ms = 70 }) {
    await until(() => sender.dtmf?.canInsertDTMF, "telephone-event");
    const done = new Promise((resolve) => {
      sender.dtmf.ontonechange = ({ tone }) => tone === "" && resolve();
    });
    sender.dtmf.insertDTMF(tones, duration_ms, gap_ms);
    await done;
    return {};
  }

  function close() {
    pc.close();
    return {};
  }

  async function until(reached, what) {
    const deadline = performance.now() + REACHED_MS;
    while (!reached()) {
      if (performance.now() > deadline) throw new Error(`not within ${REACHED_MS} ms: ${what}`);
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
  }

  return { open, speak, hush, offer, answer, accept, connected, listen, stats, dtmf, close };
})();
