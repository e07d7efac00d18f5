#!/usr/bin/env perl

# Tests for replace=: all servers of an upstream, or of several, as the list in
# the body has them.  What does not differ is not touched.

use v5.36;

use FindBin;
use lib "$FindBin::Bin/lib";

use Test::More;

use Test::Nginx;

my $t = Test::Nginx->new()->has(qw/module http proxy upstream_zone/);

my $counts = $t->has_version('1.27.3');

# As many servers as the older nginx has places for.
my $MANY = $counts ? 10_000 : 250;

$t->write_file_expand('nginx.conf', <<'CONF');
%%TEST_GLOBALS%%
worker_processes 2;
events { worker_connections 1024; }
http {
    %%TEST_GLOBALS_HTTP%%

    # The servers of a list are in its zone, and in that of the module.
    upstream_control_zone 64m;
    client_max_body_size 0;

    upstream u {
        zone u 256k;
        server 127.0.0.1:8081;
        server 127.0.0.1:8082 weight=2;
        server 127.0.0.1:8083;
        server 127.0.0.1:8084 backup;
    }

    upstream a {
        zone a 128k;
        server 127.0.0.1:8081;
    }

    upstream b {
        zone b 128k;
        server 127.0.0.1:8082;
    }

    upstream guarded {
        zone guarded 128k;
        upstream_guard min=2;
        server 127.0.0.1:8081;
        server 127.0.0.1:8082;
    }

    upstream many {
        zone many 32m;
        upstream_capacity 300;
        server 127.0.0.1:8081;
    }

    server {
        listen 127.0.0.1:8080 reuseport;

        location /status {
            upstream_status;
        }

        location /control {
            client_body_buffer_size 1m;
            upstream_control;
        }

        # Every list is in a file.
        location /file {
            client_body_buffer_size 1k;
            upstream_control;
        }

        %%BY_NAME%%
    }
}
CONF

$t->backend('127.0.0.1:8081');
$t->backend('127.0.0.1:8082');
my $slow = $t->backend('127.0.0.1:8083', delay => 2);
$t->run();
$t->leak_keys('/status', 8080, pages => { map { $_ => 60 } qw/u a b guarded/ },
	);

sub send_list ($args, $list, %more) {
	my $json = ref $list;
	my $type = $json ? 'application/json' : 'text/plain';
	my $body = $json ? JSON::PP->new->canonical->encode($list) : $list;

	return control('/' . ($more{to} // 'control') . "?replace=&$args",
		method => 'POST', body => $body, timeout => 60,
		headers => { 'Content-Type' => $type, %{ $more{headers} // {} } });
}

sub text ($r) { return $t->logical($r->told()) }

sub upstream ($name) {
	return get_json("/status?upstream=$name&verbose=")->{upstreams}{$name};
}

# What is there: id, address and what is not the default, in nginx's order.
sub shown ($name) {
	return join ' ', map {
		my $peer = $_;
		"$peer->{id}:" . $t->logical($peer->{name})
			. ($peer->{weight} == 1 ? '' : "*$peer->{weight}")
			. ($peer->{backup} ? '/backup' : '')
			. ($peer->{state} eq 'up' ? '' : "/$peer->{state}");
	} upstream($name)->{peers}->@*;
}

sub revision ($name) { return upstream($name)->{revision} }

use JSON::PP ();

# One upstream.

my $before = '0:127.0.0.1:8081 1:127.0.0.1:8082*2 2:127.0.0.1:8083 3:127.0.0.1:8084/backup';
is(shown('u'), $before, 'at first');

my $same = "server 127.0.0.1:8084 backup;\nserver 127.0.0.1:8083;\n"
	. "server 127.0.0.1:8082 weight=2; # twice\nserver 127.0.0.1:8081;";
is(text(send_list('upstream=u', $same)),
	"200 u: 0 added, 0 removed, 0 changed, 4 unchanged, revision 0\n",
	'the same servers in another order are no change');

my $list = "server 127.0.0.1:8081;\nserver 127.0.0.1:8082 weight=3 down;\n"
	. "server 127.0.0.1:8085 down max_conns=7;\nserver 127.0.0.1:8084 backup;\n";
my $plan = "removed 127.0.0.1:8083 id=2\nadded 127.0.0.1:8085\n"
	. "changed 127.0.0.1:8082 id=1, state up -> down, weight 2 -> 3\n";
my $head = '1 added, 1 removed, 1 changed, 2 unchanged';
is(text(send_list('upstream=u&dry_run=', $list)),
	"200 u: $head, revision 0, dry run\n$plan", 'the plan');
is(shown('u'), $before, 'and nothing was done');

# A request under way to the server that leaves, and one to nobody's concern.
my @under_way = map { http_start(uri => '/u/u', timeout => 10) } 1 .. 8;
$t->wait_for(sub { $slow->count() }, 5, 'one is at the slow server');

my $mark = $t->log_mark();
is(text(send_list('upstream=u&note=release+7', $list)),
	"200 u: $head, revision 1\n" . $plan =~ s/8085\n/8085 id=4\n/r,
	'what was done');
is(shown('u'),
	'0:127.0.0.1:8081 1:127.0.0.1:8082*3/down 4:127.0.0.1:8085/down '
	. '3:127.0.0.1:8084/backup', 'the servers');
is(upstream('u')->{peers}[2]{max_conns}, 7, 'their parameters');
is(upstream('u')->{peers}[1]{reason}{note}, 'release 7', 'and the reason');
is(scalar $t->grep_log(qr/\[notice\] .*upstream "u" server .*, revision 1, note: "release 7"/, $mark),
	3, 'a line in the log for each server that differs');
is(join(' ', map { http_finish($_)->status() } @under_way), '200 ' x 7 . '200',
	'requests under way ended as if nothing had happened');
is(http_get('/u/u')->status(), 200, 'new ones are served');

my $r = send_list('upstream=u&format=json', [
	{ server => '127.0.0.1:8081', weight => 5 },
	{ server => '127.0.0.1:8083', drain => JSON::PP::true },
]);
my $got = $r->json();
is($r->status() . " $got->{upstream} $got->{revision} $got->{unchanged}",
	'200 u 2 0', 'in JSON');
is(join(' ', map { $_->{id} } $got->{added}->@*), '5', 'what came');
is(join(' ', map { $_->{id} } $got->{removed}->@*), '1 4 3', 'what left');
is_deeply($got->{changed}[0]{changes}, { weight => { from => 1, to => 5 } },
	'what changed');
is(shown('u'), '0:127.0.0.1:8081*5 5:127.0.0.1:8083/draining', 'and it is so');

is(text(send_list('upstream=u', "server 127.0.0.1:8081 backup;\nserver 127.0.0.1:8082;\n")),
	"200 u: 2 added, 2 removed, 0 changed, 0 unchanged, revision 3\n"
	. "removed 127.0.0.1:8081 id=0\nremoved 127.0.0.1:8083 id=5\n"
	. "added 127.0.0.1:8081 id=6\nadded 127.0.0.1:8082 id=7\n",
	'to the other list a server goes as a new one');
is(http_get('/u/u')->status(), 200, 'it serves');

# An empty list.

is(text(send_list('upstream=u', "# none\n")),
	'409 the list has no servers, use "force=" to remove all of them',
	'no servers at all must be meant');
is(send_list('upstream=u&force=', '')->status(), 200, 'if they are');
is(shown('u'), '', 'all are gone');
is(http_get('/u/u')->status(), 502, 'nobody serves');
is(send_list('upstream=u', 'server 127.0.0.1:8081;')->status(), 200, 'back');
is(http_get('/u/u')->status(), 200, 'and it serves');

# Several upstreams.

my $both = "upstream a {\n server 127.0.0.1:8082;\n}\n"
	. "upstream b {\n server 127.0.0.1:8081;\n}\n";
is(text(send_list('', $both)),
	"200 a: 1 added, 1 removed, 0 changed, 0 unchanged, revision 1\n"
	. "removed 127.0.0.1:8081 id=0\nadded 127.0.0.1:8082 id=1\n"
	. "b: 1 added, 1 removed, 0 changed, 0 unchanged, revision 1\n"
	. "removed 127.0.0.1:8082 id=0\nadded 127.0.0.1:8081 id=1\n",
	'two upstreams at once');
is(join(' ', map { http_get("/u/$_")->status() } qw/a b/), '200 200', 'they serve');

my $half = { a => [ { server => '127.0.0.1:8081' } ],
	guarded => [ { server => '127.0.0.1:8081' } ] };
is(text(send_list('', $half)),
	'409 upstream "guarded": guard: 1 usable server would be left, at least '
	. '2 must be, use "force="', 'one that refuses');
is(revision('a') . ' ' . revision('guarded'), '1 0', 'keeps the others');
is(send_list('force=', $half)->status(), 200, 'the guard is set aside');
is(revision('a') . ' ' . revision('guarded'), '2 1', 'for all');

# Many servers.

sub many ($from, $n) {
	return map { sprintf '127.1.%d.%d:80', $_ / 250, $_ % 250 + 1 } $from .. $from + $n - 1;
}

sub lines (@servers) { return join '', map { "server $_ down;\n" } @servers }

my $first = "server 127.0.0.1:8081;\n";
$r = send_list('upstream=many', $first . lines(many(0, $MANY - 1)), to => 'file');
is((split /\n/, text($r))[0], '200 many: ' . ($MANY - 1)
	. ' added, 0 removed, 0 changed, 1 unchanged, revision 1', 'many come');
is(scalar $t->grep_log(qr/upstream "many": @{[ $MANY - 101 ]} more servers, revision 1/),
	1, 'the log counts them');
is(http_get('/u/many')->status(), 200, 'it serves');
my %ids = ids();
is(scalar keys %ids, $MANY, 'all are there');

my $other = 50;
$r = send_list('upstream=many',
	lines(many($other, $MANY - 1 - $other), reverse many($MANY, $other)) . $first);
is((split /\n/, text($r))[0], "200 many: $other added, $other removed, 0 changed, "
	. ($MANY - $other) . ' unchanged, revision 2', 'some of them change');
my %now = ids();
is(scalar(grep { exists $now{$_} && $now{$_} eq $ids{$_} } keys %ids),
	$MANY - $other, 'the others keep their ids');

sub ids () { return map { $_->{name} => $_->{id} } upstream('many')->{peers}->@* }

# Two at once: the peers are what one of the lists says.

my @lists = map { $first . lines(many(20_000 * $_, $MANY / 2)) } 1, 2;
for my $round (1 .. 3) {
	my @requests = map {
		http_start(method => 'POST', uri => '/control?upstream=many&replace=',
			headers => { 'Content-Type' => 'text/plain' },
			body => expand($_), timeout => 60)
	} $round % 2 ? @lists : reverse @lists;
	my @status = map { http_finish($_, timeout => 60)->status() } @requests;
	is("@status", '200 200', "two at once, $round");
	my $is = join '', sort map { "$_\n" } map { $_->{name} } upstream('many')->{peers}->@*;
	my $wanted = join '|', map { join '', sort map { "$_\n" } names($_) } map { expand($_) } @lists;
	ok(grep({ $_ eq $is } split /\|/, $wanted), "the servers of one of them, $round");
}

sub expand ($text) { return $t->expand($text) }

sub names ($text) { return $text =~ /^server (\S+?)(?: down)?;$/mg }

# Two over one connection, the second of which is there before the first is
# done.

my $two = join '', map {
	my $body = expand($_);
	"POST /file?upstream=many&replace= HTTP/1.1\r\nHost: localhost\r\n"
		. "Content-Type: text/plain\r\nContent-Length: " . length($body)
		. "\r\n\r\n$body"
} @lists;
my $replies = http($two, replies => 2, timeout => 60);
my @heads = $replies =~ /^HTTP\/1.1 200 OK.*?\r\n\r\nmany: \d+ added, \d+ removed/msg;
is(scalar @heads, 2, 'one behind the other');

# A client that goes away.

my $was = revision('many');
my $gone = http_start(method => 'POST', uri => '/file?upstream=many&replace=',
	headers => { 'Content-Type' => 'text/plain' },
	body => expand($first . lines(many(60_000, $MANY - 1))));
undef $gone;
is(http_get('/u/many')->status(), 200, 'a client goes away');
my $peers = upstream('many')->{peers};
ok(@$peers == $MANY || @$peers == 1 + int $MANY / 2, 'all or nothing is done then');

is(send_list('upstream=many', $first)->status(), 200, 'all leave');
is(http_get('/u/many')->status(), 200, 'it serves');

$t->done_testing();
