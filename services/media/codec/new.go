package codec

import "fmt"

// NewEncoder makes the encoder of a codec.
func NewEncoder(id ID) (Encoder, error) {
	switch id {
	case Opus:
		return newOpusEncoder()
	case G722:
		return newG722Encoder(), nil
	case PCMU, PCMA:
		return newG711Encoder(id), nil
	}
	return nil, fmt.Errorf("codec: no encoder for %v", id)
}

// NewDecoder makes the decoder of a codec.
func NewDecoder(id ID) (Decoder, error) {
	switch id {
	case Opus:
		return newOpusDecoder()
	case G722, PCMU, PCMA:
		return newPhoneDecoder(id), nil
	}
	return nil, fmt.Errorf("codec: no decoder for %v", id)
}

// Samples is the length of a packet at [Rate], 0 for one that can't be decoded.
// It reads the packet's head only.
func Samples(id ID, payload []byte) int {
	if id == Opus {
		return opusSamples(payload)
	}
	return phoneSamples(payload)
}

// Power is the mean square of a G.711 packet, from 0 to 1, read without
// decoding it; ok is false for other codecs.
func Power(id ID, payload []byte) (p float32, ok bool) {
	if id != PCMU && id != PCMA || len(payload) == 0 {
		return 0, false
	}
	l := lawOf(id)
	for _, b := range payload {
		v := l.decode[b]
		p += v * v
	}
	return p / float32(len(payload)), true
}
