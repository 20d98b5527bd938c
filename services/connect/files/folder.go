package files

import (
	"context"
	"crypto/sha3"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/parley-jami/parley/internal/jami"
)

// Errors of files on the disk.
var (
	ErrNoFile   = errors.New("no such file")
	ErrTooLarge = errors.New("the file is too large")
	ErrDisk     = errors.New("the disk is full, or does not take the file")
	ErrHash     = errors.New("the bytes are not those that were announced")
)

// Folder is where the files are. It is safe for concurrent use.
type Folder struct {
	dir     string
	out, in *os.Root
	write   func(*os.File, []byte) (int, error) // of what is got; a test has it fail
}

// OpenFolder opens the folders below dir and makes those that are not there. They are the owner's
// alone.
func OpenFolder(dir string) (*Folder, error) {
	f := &Folder{dir: dir, write: (*os.File).Write}
	for name, root := range map[string]**os.Root{"out": &f.out, "in": &f.in} {
		path := filepath.Join(dir, name)
		err := os.MkdirAll(path, 0o700)
		if err == nil {
			*root, err = os.OpenRoot(path)
		}
		if err != nil {
			return nil, errors.Join(fmt.Errorf("folder of files: %w", err), f.Close())
		}
	}
	return f, nil
}

// Close closes the folder; nothing may be done with it after.
func (f *Folder) Close() error {
	var errs []error
	for _, r := range []*os.Root{f.out, f.in} {
		if r != nil {
			errs = append(errs, r.Close())
		}
	}
	return errors.Join(errs...)
}

// give opens a file below "out". It is a regular one, of at most limit bytes.
func (f *Folder) give(path string, limit int64) (*os.File, fs.FileInfo, error) {
	// What is no regular file may not be waited for.
	file, err := f.out.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("%w: %w", ErrNoFile, err)
	}
	info, err := file.Stat()
	switch {
	case err != nil:
	case !info.Mode().IsRegular():
		err = fmt.Errorf("%w: %s is no regular file", ErrNoFile, path)
	case info.Size() > limit:
		err = fmt.Errorf("%w: %d bytes, at most %d", ErrTooLarge, info.Size(), limit)
	default:
		return file, info, nil
	}
	return nil, nil, errors.Join(err, file.Close())
}

// had opens a file that was got, whole.
func (f *Folder) had(path string, size int64) (*os.File, error) {
	info, err := f.in.Lstat(path)
	if err != nil || !info.Mode().IsRegular() || info.Size() != size {
		return nil, errors.Join(ErrNoFile, err)
	}
	return f.in.Open(path)
}

// localName is where a file that was got is kept, below "in": a name of ids alone.
func localName(account jami.ID, r Ref, name string) string {
	s := account.String() + "/" + r.String()
	if ext := localExt(name); ext != "" {
		s += "." + ext
	}
	return s
}

// partial opens what there is of a file, to go on writing at its end, and says how much that is.
func (f *Folder) partial(path string) (*os.File, int64, error) {
	if err := f.in.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, 0, diskError(err)
	}
	if info, err := f.in.Lstat(path + part); err == nil && !info.Mode().IsRegular() {
		if err := f.in.Remove(path + part); err != nil { // nobody but us has business here
			return nil, 0, diskError(err)
		}
	}
	file, err := f.in.OpenFile(path+part, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, 0, diskError(err)
	}
	n, err := file.Seek(0, io.SeekEnd)
	if err != nil {
		return nil, 0, errors.Join(diskError(err), file.Close())
	}
	return file, n, nil
}

// part ends the name of a file that is not complete.
const part = ".part"

// complete makes a file of what was got.
func (f *Folder) complete(path string, file *os.File) error {
	err := file.Sync()
	if err == nil {
		err = f.in.Rename(path+part, path)
	}
	return diskError(err)
}

// drop removes what there is of a file.
func (f *Folder) drop(path string) error {
	if err := f.in.Remove(path + part); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return diskError(err)
	}
	return nil
}

// got reports whether a file is there, complete.
func (f *Folder) got(ctx context.Context, path string, size int64, sum string) bool {
	if info, err := f.in.Lstat(path); err != nil || !info.Mode().IsRegular() || info.Size() != size {
		return false
	}
	file, err := f.in.Open(path)
	if err != nil {
		return false
	}
	defer file.Close()
	have, err := hash(ctx, file)
	return err == nil && have == sum
}

// path is a file that was got, as others find it.
func (f *Folder) path(path string) string {
	return filepath.Join(f.dir, "in", filepath.FromSlash(path))
}

func diskError(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%w: %w", ErrDisk, err)
}

// hash is the SHA3-512 of a file from its beginning, in hex (swarm §5.1).
func hash(ctx context.Context, file io.ReadSeeker) (string, error) {
	if _, err := file.Seek(0, io.SeekStart); err != nil {
		return "", diskError(err)
	}
	h, b := sha3.New512(), make([]byte, 256<<10)
	for {
		if err := ctx.Err(); err != nil {
			return "", err
		}
		n, err := file.Read(b)
		h.Write(b[:n])
		if err == io.EOF {
			return hex.EncodeToString(h.Sum(nil)), nil
		}
		if err != nil {
			return "", diskError(err)
		}
	}
}
