#!/usr/bin/env perl

# The synopsis of dynamic-upstream-module-lua, whole: its configuration runs
# as it is but for the path of the Lua files and the ports, and its scripts
# print what they promise.

use v5.36;

use FindBin;
use lib "$FindBin::Bin/lib";

use Test::More;

use Test::Nginx;

my $t = Test::Nginx->new()
	->has(qw/module http proxy upstream_zone lua/)->plan(17);

# "say" without "ngx." is a slip of the synopsis itself.  It is reached only
# when a server cannot be added or removed, and ends in an error then.
my $synopsis = <<'CONF';
http {
    lua_package_path "/path/to/lua-ngx-dynamic-upstream-lua/lib/?.lua;;";

    upstream backend {
        zone backend 1m;
        server 127.0.0.1:9090;
    }

    lua_socket_log_errors off;

    server {
        listen 9090;
        listen 9091;
        
        default_type text/plain;
        
        location / {
          return 200 'Hello world!';
        }
    }
    
    server {
        listen 8888;

        default_type text/plain;

        # add peer
        # curl "http://localhost:8888/backend/add?peer=127.0.0.1:9091"
        location ~* ^/(.+)/add {
          set $upstream $1;
          content_by_lua_block {
            local dynamic_upstream = require "ngx.dynamic_upstream"

            local peer = ngx.var.arg_peer
            local upstream = ngx.var.upstream
            
            local result, _, err = dynamic_upstream.add_peer(upstream, peer)
            if not result then
              say("Failed to add peer " .. peer .. ": ", err)
              return
            end
            
            local peer_args = {
              weight = 1,
              max_fails = 2,
              fail_timeout = 30,
              down = 1
            }
            
            result, _, err = dynamic_upstream.update_peer(upstream, peer, peer_args)
            if not result then
             ngx.say("Failed to update peer " .. peer .. " params, error: ", err)
             return
            end
            
            ngx.say("Added " .. peer .. " to " .. upstream .. " upstream")
          }
        }

        # remove peer
        # curl "http://localhost:8888/backend/remove?peer=127.0.0.1:9091"
        location ~* ^/(.+)/remove {
          set $upstream $1;
          content_by_lua_block {
            local dynamic_upstream = require "ngx.dynamic_upstream"

            local peer = ngx.var.arg_peer
            local upstream = ngx.var.upstream
            
            local result, _, err = dynamic_upstream.remove_peer(upstream, peer)
            if not result then
              say("Failed to remove peer " .. peer .. ": ", err)
              return
            end

            ngx.say("Removed " .. peer .. " from " .. upstream .. " upstream")
          }
        }
        
        # status page for all the peers:
        location = /status {
          content_by_lua_block {
            local dynamic_upstream = require "ngx.dynamic_upstream"
            local ok, upstreams, error = dynamic_upstream.get_upstreams()
            if ok then
              for _, upstream in pairs(upstreams)
              do
                ngx.say(upstream)
                local ok, servers, error = dynamic_upstream.get_servers(upstream)
                if ok then
                  for _, server in pairs(servers)
                  do
                    local status = "up"
                    if server.down ~= nil then
                      status = "down"
                    end
                    ngx.say("    server " .. server.name .. " weight=" .. server.weight .. " max_fails=" .. server.max_fails .. " fail_timeout=" .. server.fail_timeout .. " status=" .. status)
                  end
                else
                  ngx.say(error)
                end
                ngx.say()
              end
            else
              ngx.say(error)
            end
          }
        }
    }
}
CONF

my %new = (
	'/path/to/lua-ngx-dynamic-upstream-lua/lib' => "$FindBin::Bin/../lualib",
	9090 => port(8081), 9091 => port(8082), 8888 => port(8080),
);
my $changed = $synopsis =~ s{(/path/to/[^?]*lib)/\?|\b(9090|9091|8888)\b}
	{ $1 ? "$new{$1}/?" : $new{$2} }egr;

# What the harness adds, and what others see of it.
$changed =~ s/^http \{\n/http {\n%%TEST_GLOBALS_HTTP%%\n%%STATUS%%\n/;

my $whole = "%%TEST_GLOBALS%%\nworker_processes 2;\nevents { }\n$changed";

# With no directive of ours at all.
$t->write_file_expand('nginx.conf', $whole, STATUS => '')->run();
is(body('/backend/add?peer=127.0.0.1:8082'),
	"Added 127.0.0.1:8082 to backend upstream\n", 'the module alone is enough');
$t->stop();

$t->write_file_expand('nginx.conf', $whole, STATUS => <<'CONF');
server {
    listen 127.0.0.1:8083;
    location /status { upstream_status; }
    location / { proxy_pass http://backend; }
}
CONF

$t->run();
$t->leak_keys('/status', 8083);

my $first = 'weight=1 max_fails=1 fail_timeout=10 status=up';

is(body('/status'), listing($first), 'status page');

is(body('/backend/add?peer=127.0.0.1:8082'),
	"Added 127.0.0.1:8082 to backend upstream\n", 'add');
is(body('/status'), listing($first,
	'weight=1 max_fails=2 fail_timeout=30 status=down'), 'it is there');

my @peers = get_json('/status', port => 8083)
	->{upstreams}{backend}{peers}->@*;
is_deeply([ map { $t->logical($_->{name}) } @peers ],
	[ '127.0.0.1:8081', '127.0.0.1:8082' ], 'in shared memory, too');
is($peers[1]{state}, 'down', 'its state');
is($peers[1]{reason}{client}, '127.0.0.1', 'its reason');
like($t->find_in_log(qr/added/), qr/"backend" server "[\d.:]+": added, .*client: 127\.0\.0\.1/,
	'and in the log');
is(http_get('/', port => 8083)->body(), 'Hello world!', 'the upstream serves');

# There already: the slip of the synopsis.
$t->allow_log(qr/attempt to call global 'say'/);
is(http_get('/backend/add?peer=127.0.0.1:' . port(8082))->status(), 500,
	'add again');
ok($t->find_in_log(qr/attempt to call global 'say'/), 'its words');

is(body('/backend/remove?peer=127.0.0.1:8082'),
	"Removed 127.0.0.1:8082 from backend upstream\n", 'remove');
is(body('/status'), listing($first), 'it is gone');

is(http_get('/backend/remove?peer=127.0.0.1:' . port(8082))->status(), 500,
	'remove again');
is(http_get('/backend/remove?peer=127.0.0.1:' . port(8081))->status(), 500,
	'remove the last one');
is(body('/status'), listing($first), 'which stays');
is(http_get('/nobody/add?peer=127.0.0.1:' . port(8082))->status(), 500,
	'an upstream that is not there');

sub body ($uri) { return control($uri)->body() }

# The status page of the synopsis.
sub listing (@servers) {
	my $port = 8081;
	return join '', "backend\n",
		(map { "    server 127.0.0.1:@{[ $port++ ]} $_\n" } @servers), "\n";
}
