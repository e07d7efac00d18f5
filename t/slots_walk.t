#!/usr/bin/env perl

# Tests for what modules of others see before nginx 1.27.3 that walk the peers
# themselves, by their links or by their number: the servers, and no blank
# slot.  Such a module is played by LuaJIT's FFI, which reads nginx's memory.

use v5.36;

use FindBin;
use lib "$FindBin::Bin/lib";

use Test::More;

use Test::Nginx;
use Test::Nginx::Lua;

my $t = Test::Nginx->new()->has(qw/
	module http proxy upstream_zone upstream_hash upstream_random lua
/);

plan(skip_all => 'lists grow since nginx 1.27.3')
	if $t->has_version('1.27.3');

$t->write_file_expand('nginx.conf', <<'CONF',
%%TEST_GLOBALS%%
worker_processes 2;
events { }
http {
    %%TEST_GLOBALS_HTTP%%
    %%LUA_PATH%%

    upstream plain {
        zone plain 256k;
        server 127.0.0.1:8081;
        server 127.0.0.1:8082;
    }

    upstream backed {
        zone backed 256k;
        server 127.0.0.1:8081;
        server 127.0.0.1:8082;
        server 127.0.0.1:8085 backup;
    }

    upstream hashed {
        zone hashed 256k;
        hash $arg_key;
        server 127.0.0.1:8081;
        server 127.0.0.1:8082;
    }

    upstream chance {
        zone chance 256k;
        random two;
        server 127.0.0.1:8081;
        server 127.0.0.1:8082;
    }

    # More slots than a request has room to note by itself.
    upstream large {
        zone large 1m;
        upstream_capacity 200;
        server 127.0.0.1:8081;
        server 127.0.0.1:8082;
    }

    upstream large_hashed {
        zone large_hashed 1m;
        upstream_capacity 200;
        hash $arg_key;
        server 127.0.0.1:8081;
        server 127.0.0.1:8082;
    }

    upstream excluded {
        zone excluded 256k;
        upstream_dynamic off;
        server 127.0.0.1:8081;
        server 127.0.0.1:8082;
    }

    server {
        listen 127.0.0.1:8080;

        %%CONTROL%%

        %%BY_NAME%%

        %%LUA%%
    }
}
CONF
	LUA_PATH => Test::Nginx::Lua::path(),
	LUA => Test::Nginx::Lua::location('/lua'));

my @CHANGED = qw/plain backed hashed chance large large_hashed/;
my @ALL = (@CHANGED, 'excluded');

# How nginx before 1.27.3 lays out its upstreams.
my $WALK = <<'LUA';
local ffi = require "ffi"
if not _G.walk_types then
    _G.walk_types = true
    ffi.cdef[[
    typedef struct { size_t len; const char *data; } walk_str_t;
    typedef struct walk_peer_s {
        void *sockaddr; unsigned socklen; walk_str_t name, server;
        intptr_t current_weight, effective_weight, weight;
        uintptr_t conns, max_conns, fails; long accessed, checked;
        uintptr_t max_fails; long fail_timeout;
        uintptr_t slow_start, start_time, down;
        void *ssl_session; int ssl_session_len; uintptr_t lock;
        struct walk_peer_s *next;
    } walk_peer_t;
    typedef struct walk_peers_s {
        uintptr_t number; void *shpool; uintptr_t rwlock; void *zone_next;
        uintptr_t total_weight, tries; unsigned single:1, weighted:1;
        walk_str_t *name; struct walk_peers_s *next; walk_peer_t *peer;
    } walk_peers_t;
    typedef struct {
        void *init_upstream, *init; walk_peers_t *data;
        void *srv_conf, *servers; uintptr_t flags; walk_str_t host;
    } walk_upstream_t;
    typedef struct {
        void *buckets; size_t size; walk_upstream_t **elts; uintptr_t nelts;
    } walk_main_t;
    typedef struct { walk_main_t **main_conf; } walk_context_t;
    typedef struct { uintptr_t ctx_index, index; } walk_module_t;
    typedef struct { walk_context_t **conf_ctx; } walk_cycle_t;
    extern walk_module_t ngx_http_module, ngx_http_upstream_module;
    extern walk_cycle_t *ngx_cycle;
    ]]
end
local C = ffi.C
local context = C.ngx_cycle.conf_ctx[C.ngx_http_module.index]
local main = context.main_conf[C.ngx_http_upstream_module.ctx_index]
local function text(str)
    return str.len > 0 and ffi.string(str.data, str.len) or "nameless"
end

local function walk(list)
    if list == nil then return "none" end
    local linked, counted, peer = {}, {}, list.peer
    while peer ~= nil do
        linked[#linked + 1] = text(peer.name)
        peer = peer.next
    end
    peer = list.peer
    for _ = 1, tonumber(list.number) do
        if peer == nil then
            counted[#counted + 1] = "null"
            break
        end
        counted[#counted + 1] = text(peer.name)
        peer = peer.next
    end
    return table.concat(linked, " ") .. "|" .. table.concat(counted, " ")
end

local seen = {}
for at = 0, tonumber(main.nelts) - 1 do
    local us = main.elts[at]
    if us.srv_conf ~= nil then
        local list = us.data
        seen[#seen + 1] = text(us.host) .. "=" .. walk(list) .. "/"
            .. walk(list.next)
    end
end
return table.concat(seen, "\n")
LUA

# A change, and the primaries that there are then.
my @STEPS = (
	[ undef, 8081, 8082 ],
	[ 'add=&server=127.0.0.1:8083', 8081, 8082, 8083 ],
	[ 'remove=&server=127.0.0.1:8081', 8082, 8083 ],
	[ 'id=1&server=127.0.0.1:8084', 8084, 8083 ],
	[ 'remove=&server=127.0.0.1:8084', 8083 ],
	[ 'remove=&server=127.0.0.1:8083' ],
	[ 'add=&server=127.0.0.1:8082', 8082 ],
	[ 'add=&server=127.0.0.1:8081', 8082, 8081 ],
);

$t->plan(@STEPS + 8);

$t->backend("127.0.0.1:$_") for 8081 .. 8085;
$t->run();
$t->leak_keys('/status', 8080);

for my $step (@STEPS) {
	my ($args, @ports) = @$step;
	if ($args) {
		change($_, $args) for @CHANGED;
	}
	my %wanted = map { $_ => [ [ names(@ports) ], [ names(@ports) ] ] } @ALL;
	$wanted{excluded} = [ ([ names(8081, 8082) ]) x 2 ];
	my %seen = map { my $all = $_; my $us = walked($all);
		$all => $us->{primaries} } @ALL;
	if (!@ports) {
		# One that is down stands for none: some methods must find a peer.
		for my $name (@CHANGED) {
			my $n = grep { @$_ == 1 } @{ $seen{$name} };
			$seen{$name} = $wanted{$name} if $n == 2;
		}
	}
	is_deeply(\%seen, \%wanted, ($args // 'as configured') . ': primaries');
}

is_deeply(backups('backed'), [ [ names(8085) ], [ names(8085) ] ], 'backups');
is_deeply(backups('plain'), [ [], [] ], 'no backups yet');
is_deeply(backups('hashed'), undef, 'a method without backups');
is_deeply(backups('large')->[0], [], 'no backups of many slots');

change('backed', 'remove=&server=127.0.0.1:8085');
change($_, 'add=&server=127.0.0.1:8084&backup=') for qw/plain large/;

is_deeply(backups('backed'), [ [], [] ], 'the last backup left');
is_deeply(backups('plain'), [ [ names(8084) ], [ names(8084) ] ],
	'the first backup came');
is_deeply(backups('large')->[0], [ names(8084) ], 'one of many slots');

# Nobody has a server: the empty list of backups is asked, too.
for my $name (@CHANGED) {
	change($name, "remove=&server=127.0.0.1:$_") for 8081, 8082;
}
is(join(' ', map { http_get("/u/$_?key=1")->status() } @CHANGED),
	'200 502 502 502 200 502', 'requests to backups, and to nobody');

sub names (@ports) { return map { "127.0.0.1:$_" } @ports; }

sub change ($name, $args) {
	my $r = control("/control?upstream=$name&$args&force=");
	die "$name: $args: " . $r->status() . ' ' . $r->body() . "\n"
		if $r->status() != 200;
}

sub backups ($name) { return walked($name)->{backups}; }

# What is seen of an upstream: by links, and by number.
sub walked ($name) {
	my $text = lua($WALK);
	$text =~ s/^"|"$//g;
	for my $line (split /\\010/, $text) {
		my ($upstream, $primaries, $backups) = $line =~ m{^(\w+)=(.*)/(.*)$}
			or die "no walk: $line\n";
		next if $upstream ne $name;
		return { primaries => seen($primaries), backups => seen($backups) };
	}
	die "no upstream $name in: $text\n";
}

sub seen ($walks) {
	return undef if $walks eq 'none';
	return [ map { [ split ' ' ] } split /\|/, $walks, -1 ];
}
