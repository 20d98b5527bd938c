package libp2p

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multihash"
	"github.com/vmihailenco/msgpack/v5"

	"github.com/parley-jami/parley/services/dht/overlay"
)

const (
	namespace     = "parley"
	recordVersion = 1
	signPrefix    = "parley-dht-record:"
	providePrefix = "parley-dht:"
)

// Bounds of one writer's record under one key.
const (
	maxValues = 64
	maxRecord = 256 << 10
)

// clockSlack is how much later than allowed a record may expire: peers' clocks
// differ.
const clockSlack = time.Hour

// Errors of records.
var (
	errRecord  = errors.New("record")
	errExpired = errors.New("record has expired")
)

// record is one writer's values under one key.
type record struct {
	key     overlay.Key
	seq     uint64
	expires time.Time
	values  []overlay.Value // Writer is set by parseRecord
}

// recordKey is where kad-dht keeps a writer's record.
func recordKey(key overlay.Key, writer peer.ID) string {
	return "/" + namespace + "/" + hex.EncodeToString(key[:]) + "/" + writer.String()
}

func parseRecordKey(s string) (key overlay.Key, writer peer.ID, err error) {
	rest, ok := strings.CutPrefix(s, "/"+namespace+"/")
	k, w, ok2 := strings.Cut(rest, "/")
	if !ok || !ok2 || len(k) != 2*len(key) {
		return key, "", fmt.Errorf("%w: key %.80q", errRecord, s)
	}
	if _, err := hex.Decode(key[:], []byte(k)); err != nil {
		return key, "", fmt.Errorf("%w: key %.80q", errRecord, s)
	}
	writer, err = peer.Decode(w)
	if err != nil || recordKey(key, writer) != s { // one spelling alone
		return key, "", fmt.Errorf("%w: key %.80q", errRecord, s)
	}
	return key, writer, nil
}

// provideCID is what the writers of a key provide.
func provideCID(key overlay.Key) (cid.Cid, error) {
	mh, err := multihash.Sum(append([]byte(providePrefix), key[:]...), multihash.SHA2_256, -1)
	if err != nil {
		return cid.Undef, fmt.Errorf("%w: %w", errRecord, err)
	}
	return cid.NewCidV1(cid.Raw, mh), nil
}

// pack signs and encodes.
func (r *record) pack(key crypto.PrivKey) ([]byte, error) {
	var b bytes.Buffer
	e := msgpack.NewEncoder(&b)
	e.UseCompactInts(true)
	var err error
	do := func(e error) {
		if err == nil {
			err = e
		}
	}
	do(e.EncodeArrayLen(5))
	do(e.EncodeUint(recordVersion))
	do(e.EncodeBytes(r.key[:]))
	do(e.EncodeUint(r.seq))
	do(e.EncodeUint(uint64(r.expires.UnixMilli())))
	do(e.EncodeArrayLen(len(r.values)))
	for i := range r.values {
		v := &r.values[i]
		do(e.EncodeArrayLen(4))
		do(e.EncodeUint(v.ID))
		do(e.EncodeUint(uint64(v.Type)))
		do(e.EncodeUint(uint64(v.Expires.UnixMilli())))
		do(e.EncodeBytes(append([]byte{}, v.Data...)))
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errRecord, err)
	}
	sig, err := key.Sign(append([]byte(signPrefix), b.Bytes()...))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errRecord, err)
	}
	out, err := msgpack.Marshal([][]byte{b.Bytes(), sig})
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errRecord, err)
	}
	if len(out) > maxRecord {
		return nil, fmt.Errorf("%w: %d bytes under one key, at most %d", overlay.ErrTooLarge, len(out), maxRecord)
	}
	return out, nil
}

// parseRecord checks the signature and every bound; it does not look at the
// clock.
func parseRecord(name string, b []byte) (*record, error) {
	key, writer, err := parseRecordKey(name)
	if err != nil {
		return nil, err
	}
	if len(b) > maxRecord {
		return nil, fmt.Errorf("%w: %d bytes", errRecord, len(b))
	}
	pub, err := writer.ExtractPublicKey()
	if err != nil {
		return nil, fmt.Errorf("%w: writer: %w", errRecord, err)
	}
	d := reader{d: msgpack.NewDecoder(bytes.NewReader(b)), max: len(b)}
	d.arrayLen(2, 2)
	body, sig := d.bytes(), d.bytes()
	if d.err != nil {
		return nil, fmt.Errorf("%w: %w", errRecord, d.err)
	}
	if ok, err := pub.Verify(append([]byte(signPrefix), body...), sig); err != nil || !ok {
		return nil, fmt.Errorf("%w: signature does not verify", errRecord)
	}
	r, err := parseBody(body)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errRecord, err)
	}
	if r.key != key {
		return nil, fmt.Errorf("%w: of another key", errRecord)
	}
	for i := range r.values {
		r.values[i].Writer = writer.String()
	}
	return r, nil
}

func parseBody(body []byte) (*record, error) {
	d := reader{d: msgpack.NewDecoder(bytes.NewReader(body)), max: len(body)}
	d.arrayLen(5, 5)
	if v := d.uint(); d.err == nil && v != recordVersion {
		return nil, fmt.Errorf("version %d", v)
	}
	r := new(record)
	if k := d.bytes(); d.err == nil && copy(r.key[:], k) != len(r.key) {
		return nil, errors.New("short key")
	}
	r.seq = d.uint()
	r.expires = d.time()
	n := d.arrayLen(0, maxValues)
	seen := make(map[uint64]bool, n)
	for range n {
		d.arrayLen(4, 4)
		v := overlay.Value{Key: r.key, ID: d.uint()}
		typ := d.uint()
		v.Type, v.Expires, v.Data = uint16(typ), d.time(), d.bytes()
		switch {
		case d.err != nil:
			return nil, d.err
		case v.ID == 0 || seen[v.ID] || typ > 1<<16-1 || len(v.Data) > overlay.MaxValue || v.Expires.After(r.expires):
			return nil, fmt.Errorf("value %d is out of bounds", v.ID)
		}
		seen[v.ID] = true
		r.values = append(r.values, v)
	}
	return r, d.err
}

// fresh checks the clock's side: nothing lives longer than its type.
func (r *record) fresh(now time.Time) error {
	if !r.expires.After(now) {
		return errExpired
	}
	most := overlay.Lifetime(0) // of a record without values
	for i := range r.values {
		v := &r.values[i]
		life := overlay.Lifetime(v.Type)
		if v.Expires.After(now.Add(life + clockSlack)) {
			return fmt.Errorf("%w: value %d of type %d lives longer than %s", errRecord, v.ID, v.Type, life)
		}
		most = max(most, life)
	}
	if r.expires.After(now.Add(most + clockSlack)) {
		return fmt.Errorf("%w: expires too late", errRecord)
	}
	return nil
}

// live returns the values that have not expired.
func (r *record) live(now time.Time) []overlay.Value {
	out := make([]overlay.Value, 0, len(r.values))
	for _, v := range r.values {
		if v.Expires.After(now) {
			out = append(out, v)
		}
	}
	return out
}

// reader keeps the first error of a decoder.
type reader struct {
	d   *msgpack.Decoder
	max int // no length inside may exceed it
	err error
}

func (r *reader) arrayLen(low, high int) int {
	if r.err != nil {
		return 0
	}
	n, err := r.d.DecodeArrayLen()
	if err == nil && (n < low || n > high) {
		err = fmt.Errorf("array of %d, want %d to %d", n, low, high)
	}
	r.err = err
	if err != nil {
		return 0
	}
	return n
}

func (r *reader) uint() (n uint64) {
	if r.err == nil {
		n, r.err = r.d.DecodeUint64()
	}
	return n
}

// time reads unix milliseconds; far beyond any lifetime is out of bounds.
func (r *reader) time() time.Time {
	ms := r.uint()
	if r.err == nil && ms > 1<<50 {
		r.err = errors.New("time out of bounds")
	}
	return time.UnixMilli(int64(ms))
}

func (r *reader) bytes() []byte {
	if r.err != nil {
		return nil
	}
	n, err := r.d.DecodeBytesLen()
	if err == nil && (n < 0 || n > r.max) {
		err = fmt.Errorf("%d bytes announced", n)
	}
	if err != nil {
		r.err = err
		return nil
	}
	b := make([]byte, n)
	r.err = r.d.ReadFull(b)
	return b
}

// validator is kad-dht's view of records: what a peer may store with us, and
// which of two is newer.
type validator struct{ now func() time.Time }

func (v validator) Validate(key string, b []byte) error {
	r, err := parseRecord(key, b)
	if err != nil {
		return err
	}
	return r.fresh(v.now())
}

func (v validator) Select(key string, bs [][]byte) (int, error) {
	best, at := -1, uint64(0)
	for i, b := range bs {
		r, err := parseRecord(key, b)
		if err != nil {
			continue
		}
		if best < 0 || r.seq > at || r.seq == at && bytes.Compare(b, bs[best]) > 0 {
			best, at = i, r.seq
		}
	}
	if best < 0 {
		return 0, fmt.Errorf("%w: none is valid", errRecord)
	}
	return best, nil
}
