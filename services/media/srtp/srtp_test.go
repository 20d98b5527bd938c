package srtp

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"testing"

	pion "github.com/pion/srtp/v2"
)

var profiles = []Profile{GCM, CM80, CM32}

func keys(p Profile) Keys {
	k := Keys{Profile: p, Key: make([]byte, KeyLen), Salt: make([]byte, p.SaltLen())}
	for i := range k.Key {
		k.Key[i] = byte(7*i + 1)
	}
	for i := range k.Salt {
		k.Salt[i] = byte(13*i + 5)
	}
	return k
}

func packet(seq uint16, payload int, buf []byte) int {
	n := 12 + payload
	clear(buf[:n])
	buf[0], buf[1] = 0x80, 111
	binary.BigEndian.PutUint16(buf[2:], seq)
	binary.BigEndian.PutUint32(buf[4:], 960*uint32(seq))
	binary.BigEndian.PutUint32(buf[8:], 0xcafebabe)
	for i := range payload {
		buf[12+i] = byte(i)
	}
	return n
}

func pionContext(t testing.TB, p Profile) *pion.Context {
	t.Helper()
	k := keys(p)
	c, err := pion.CreateContext(k.Key, k.Salt, pion.ProtectionProfile(p))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// TestSameAsPion: both directions, over a roll-over of the sequence number.
func TestSameAsPion(t *testing.T) {
	for _, p := range profiles {
		t.Run(p.String(), func(t *testing.T) {
			out, err := NewOut(keys(p))
			if err != nil {
				t.Fatal(err)
			}
			in, err := NewIn(keys(p))
			if err != nil {
				t.Fatal(err)
			}
			ref := pionContext(t, p)
			for i := 65500; i < 65600; i++ {
				var buf [256]byte
				n := packet(uint16(i), 50+i%100, buf[:])
				clearText := bytes.Clone(buf[:n])
				want, err := ref.EncryptRTP(nil, clearText, nil)
				if err != nil {
					t.Fatal(err)
				}
				got := buf[:out.RTP(buf[:], n, 12, uint32(i>>16))]
				if !bytes.Equal(got, want) {
					t.Fatalf("packet %d: got %x want %x", i, got, want)
				}
				payload, index, err := in.RTP(want, 12)
				if err != nil || index != uint64(i) || !bytes.Equal(payload, clearText[12:]) {
					t.Fatalf("packet %d: opened as %d, %v", i, index, err)
				}
			}
			for i := range 10 {
				sr := append([]byte{0x80, 200, 0, 6, 1, 2, 3, 4}, make([]byte, 20)...)
				want, err := ref.EncryptRTCP(nil, sr, nil)
				if err != nil {
					t.Fatal(err)
				}
				buf := make([]byte, 64)
				n := out.RTCP(buf, copy(buf, sr), uint32(i)+1)
				if !bytes.Equal(buf[:n], want) {
					t.Fatalf("rtcp: got %x want %x", buf[:n], want)
				}
				plain, err := in.RTCP(bytes.Clone(want))
				if err != nil || !bytes.Equal(plain, sr) {
					t.Fatalf("rtcp opened: %x, %v", plain, err)
				}
				if _, err := in.RTCP(bytes.Clone(want)); !errors.Is(err, ErrReplay) {
					t.Fatalf("replayed rtcp: %v", err)
				}
			}
		})
	}
}

// TestDerivation checks the vectors of RFC 3711 §B.3.
func TestDerivation(t *testing.T) {
	key, _ := hex.DecodeString("E1F97A0D3E018BE0D64FA32C06DE4139")
	salt, _ := hex.DecodeString("0EC675AD498AFEEBB6960B3AABE6")
	rtp, _, err := newHalves(Keys{Profile: CM80, Key: key, Salt: salt})
	if err != nil {
		t.Fatal(err)
	}
	if got := hex.EncodeToString(rtp.salt[:14]); got != "30cbbc08863d8c85d49db34a9ae1" {
		t.Errorf("cipher salt %s", got)
	}
	var x [16]byte
	rtp.block.Encrypt(x[:], x[:])
	// The derived key is inside the cipher: seen through one block.
	want, _ := hex.DecodeString("C61E7A93744F39EE10734AFE3FF7A087")
	blk := mustAES(t, want)
	var y [16]byte
	blk.Encrypt(y[:], y[:])
	if x != y {
		t.Errorf("cipher key differs")
	}
}

// TestGCMVector checks RFC 7714 §16.1.1 below the key derivation.
func TestGCMVector(t *testing.T) {
	key, _ := hex.DecodeString("000102030405060708090a0b0c0d0e0f")
	salt, _ := hex.DecodeString("517569642070726f2071756f")
	pkt, _ := hex.DecodeString("8040f17b8041f8d35501a0b2" +
		"47616c6c696120657374206f6d6e69732064697669736120696e207061727465732074726573")
	want := "8040f17b8041f8d35501a0b2f24de3a3fb34de6cacba861c9d7e4bcabe633bd50d294e6f42a5f47a51c7d19b36de3adf8833899d7f27beb16a9152cf765ee4390cce"
	h := &half{tag: 16, aead: mustGCM(t, key)}
	copy(h.salt[:], salt)
	buf := make([]byte, 128)
	n := (&Out{rtp: h}).RTP(buf, copy(buf, pkt), 12, 0)
	if got := hex.EncodeToString(buf[:n]); got != want {
		t.Errorf("got %s", got)
	}
}

func TestRefused(t *testing.T) {
	for _, p := range profiles {
		out, _ := NewOut(keys(p))
		in, _ := NewIn(keys(p))
		seal := func(index uint64) []byte {
			buf := make([]byte, 256)
			n := packet(uint16(index), 80, buf)
			return buf[:out.RTP(buf, n, 12, uint32(index>>16))]
		}
		open := func(b []byte) error { _, _, err := in.RTP(b, 12); return err }
		for _, c := range []struct {
			name string
			pkt  []byte
			want error
		}{
			{"first", seal(1000), nil},
			{"again", seal(1000), ErrReplay},
			{"late but new", seal(990), nil},
			{"late again", seal(990), ErrReplay},
			{"too old", seal(900), ErrReplay},
			{"far ahead", seal(9000), nil},
			{"short", seal(9001)[:13], ErrShort},
			{"cut", seal(9002)[:80], ErrAuth},
		} {
			if err := open(c.pkt); !errors.Is(err, c.want) {
				t.Errorf("%s %s: %v, want %v", p, c.name, err, c.want)
			}
		}
		bad := seal(9003)
		bad[20] ^= 1
		if err := open(bad); !errors.Is(err, ErrAuth) {
			t.Errorf("%s changed byte: %v", p, err)
		}
		if err := open(seal(9003)); err != nil {
			t.Errorf("%s: a refused packet must leave no trace: %v", p, err)
		}
		in.Resume(0xcafebabe, 3<<16|5)
		if err := open(seal(3<<16 | 5)); !errors.Is(err, ErrReplay) {
			t.Errorf("%s after resume: %v", p, err)
		}
		if err := open(seal(3<<16 | 6)); err != nil {
			t.Errorf("%s after resume: %v", p, err)
		}
	}
	if _, err := NewOut(Keys{Profile: GCM, Key: make([]byte, 15), Salt: make([]byte, 12)}); err == nil {
		t.Error("short key taken")
	}
}

func TestZeroAlloc(t *testing.T) {
	for _, p := range profiles {
		out, _ := NewOut(keys(p))
		in, _ := NewIn(keys(p))
		buf := make([]byte, 512)
		seq := uint16(1)
		n := testing.AllocsPerRun(500, func() {
			seq++
			l := out.RTP(buf, packet(seq, 120, buf), 12, 0)
			if _, _, err := in.RTP(buf[:l], 12); err != nil {
				t.Fatal(err)
			}
		})
		if n != 0 {
			t.Errorf("%s: %v allocations a packet", p, n)
		}
	}
}

func BenchmarkProtect(b *testing.B) {
	for _, p := range profiles {
		b.Run("own/"+p.String(), func(b *testing.B) {
			out, _ := NewOut(keys(p))
			buf := make([]byte, 512)
			n := packet(1, 100, buf)
			b.ReportAllocs()
			for b.Loop() {
				out.RTP(buf, n, 12, 0)
			}
		})
		b.Run("pion/"+p.String(), func(b *testing.B) {
			ctx := pionContext(b, p)
			buf, dst := make([]byte, 512), make([]byte, 512)
			n := packet(1, 100, buf)
			seq := uint16(0)
			b.ReportAllocs()
			for b.Loop() {
				seq++
				binary.BigEndian.PutUint16(buf[2:], seq)
				if _, err := ctx.EncryptRTP(dst[:0], buf[:n], nil); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkOpen(b *testing.B) {
	for _, p := range profiles {
		b.Run(p.String(), func(b *testing.B) {
			out, _ := NewOut(keys(p))
			in, _ := NewIn(keys(p))
			ref, buf := make([]byte, 512), make([]byte, 512)
			n := out.RTP(ref, packet(1, 100, ref), 12, 0)
			b.ReportAllocs()
			for b.Loop() {
				copy(buf, ref[:n])
				in.n = 0
				if _, _, err := in.RTP(buf[:n], 12); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func FuzzOpen(f *testing.F) {
	buf := make([]byte, 256)
	out, _ := NewOut(keys(GCM))
	f.Add(bytes.Clone(buf[:out.RTP(buf, packet(1, 20, buf), 12, 0)]))
	f.Add([]byte{0x80, 200, 0, 1, 0, 0, 0, 0, 0x80, 0, 0, 1})
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, p := range profiles {
			in, err := NewIn(keys(p))
			if err != nil {
				t.Fatal(err)
			}
			if _, err := in.RTCP(bytes.Clone(b)); err == nil && len(b) < 8 {
				t.Fatal("opened a short packet")
			}
			if _, _, err := in.RTP(bytes.Clone(b), 12); err == nil && len(b) < 12 {
				t.Fatal("opened a short packet")
			}
		}
	})
}
