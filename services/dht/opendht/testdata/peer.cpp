// One node of Debian's libopendht, for what neither dhtnode nor python3-opendht can do:
// values of a type, id and time of creation that are chosen, signed, encrypted, replaced.
// Commands are lines of words on standard input, answers and events lines of words on
// standard output; data is hexadecimal, "-" is none.
//
//   put KEY ID TYPE AGE FORM DATA [TO]   FORM: plain, signed, encrypted (TO: DER key)
//   update KEY ID TYPE DATA              signed, in place of what this node signed
//   get KEY
//   listen KEY
//
// Build: g++ -std=c++17 -O1 peer.cpp -o peer -lopendht -lgnutls
#include <opendht.h>

#include <iostream>
#include <mutex>
#include <sstream>

using namespace dht;

static std::mutex out;

template <typename... T> static void say(T&&... words)
{
    std::lock_guard<std::mutex> lock(out);
    ((std::cout << words << ' '), ...);
    std::cout << std::endl;
}

static std::string hex(const Blob& b)
{
    static const char digits[] = "0123456789abcdef";
    std::string s;
    for (auto c : b) {
        s += digits[c >> 4];
        s += digits[c & 15];
    }
    return s.empty() ? "-" : s;
}

static Blob unhex(const std::string& s)
{
    Blob b;
    for (size_t i = 0; s != "-" && i + 1 < s.size(); i += 2)
        b.push_back((uint8_t) std::stoul(s.substr(i, 2), nullptr, 16));
    return b;
}

static void show(const char* event, const std::string& key, const char* sign, const Value& v)
{
    say(event, key, sign, v.id, v.seq, v.recipient ? "encrypted" : v.owner ? "signed" : v.isEncrypted() ? "closed" : "plain", hex(v.data));
}

int main(int argc, char** argv)
{
    if (argc < 2)
        return 2;
    auto identity = crypto::generateIdentity("peer", {}, 2048);
    DhtRunner node;
    node.run(std::stoi(argv[1]), identity, true);
    if (argc > 2)
        node.bootstrap("127.0.0.1", argv[2]);
    Blob der;
    identity.first->getPublicKey().pack(der);
    say("up", node.getNodeId().toString(), identity.first->getPublicKey().getId().toString(), hex(der));
    std::string line;
    while (std::getline(std::cin, line)) {
        std::istringstream in(line);
        std::string op, key, form, data, to;
        in >> op >> key;
        InfoHash at(key);
        Value::Id id = 0;
        unsigned type = 0;
        long age = 0;
        auto stored = [key](bool ok) { say("stored", key, ok ? "ok" : "failed"); };
        if (op == "put") {
            in >> id >> type >> age >> form >> data >> to;
            auto v = std::make_shared<Value>((uint16_t) type, unhex(data), id);
            if (form == "signed")
                v->sign(*identity.first);
            if (form == "encrypted") {
                auto der = unhex(to);
                v = std::make_shared<Value>(v->encrypt(*identity.first, crypto::PublicKey(der)));
                v->id = id;
            }
            node.put(at, v, stored, clock::now() - std::chrono::seconds(age));
        } else if (op == "update") {
            in >> id >> type >> data;
            node.putSigned(at, std::make_shared<Value>((uint16_t) type, unhex(data), id), stored);
        } else if (op == "get") {
            node.get(at,
                [key](const std::vector<std::shared_ptr<Value>>& vs) {
                    for (const auto& v : vs)
                        show("got", key, "+", *v);
                    return true;
                },
                [key](bool) { say("done", key); });
        } else if (op == "listen") {
            node.listen(at, [key](const std::vector<std::shared_ptr<Value>>& vs, bool expired) {
                for (const auto& v : vs)
                    show("told", key, expired ? "-" : "+", *v);
                return true;
            });
            say("listening", key);
        }
    }
    node.join();
}
