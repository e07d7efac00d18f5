#!/usr/bin/env perl

# Tests for workers of the configuration before a reload, which still have
# requests in hand: what is changed when the reload is over holds for these, too,
# and what an old worker is told holds for the new ones.

use v5.36;

use FindBin;
use lib "$FindBin::Bin/lib";

use Test::More;

use Test::Nginx;

my $t = Test::Nginx->new()
	->has(qw/module http proxy upstream_zone upstream_least_conn ssi/)
	->plan(41);

my $CONF = <<'CONF';
%%TEST_GLOBALS%%
worker_processes 2;
events { }
http {
    %%TEST_GLOBALS_HTTP%%

    upstream u {
        zone u 256k;
        upstream_capacity 60;
        %%SERVERS%%
    }

    upstream retried {
        zone retried 128k;
        server 127.0.0.1:8086;
        server 127.0.0.1:8083;
        server 127.0.0.1:8084 backup;
    }

    upstream first {
        zone first 128k;
        server 127.0.0.1:8081;
    }

    upstream second {
        zone second 128k;
        server 127.0.0.1:8082;
    }

    upstream pools {
        pool first;
        pool second;
    }

    server {
        listen 127.0.0.1:8080;

        proxy_next_upstream error timeout http_500 non_idempotent;

        location /here { return 200; }
        location /status { upstream_status; }
        location /control { upstream_control; }
        location /page { ssi on; default_type text/html; root %%TESTDIR%%; }
        location /hold { proxy_pass http://127.0.0.1:8087; }
        location ~ ^/u/(?<name>\w+)$ { proxy_pass http://$name; }
    }
}
CONF

my @ALL = map { "127.0.0.1:$_" } 8081 .. 8085;

$t->write_file('page', '<!--# include virtual="/hold" wait="yes" -->'
	. '<!--# include virtual="/u/u" wait="yes" -->'
	. '<!--# include virtual="/u/u" wait="yes" -->'
	. '<!--# include virtual="/u/u" wait="yes" -->');
$t->backend($_) for @ALL;
$t->backend('127.0.0.1:8086', status => 500, delay => 1.5);
my $hold = $t->backend('127.0.0.1:8087', body => '', delay => 1.5);

configure(@ALL[0 .. 2]);
$t->run();
$t->leak_keys('/status', 8080);

page();
states();
members();
other_servers();
other_names();
many();
two_reloads();
retries();
pools();
told();
refused();

sub configure (@servers) {
	$t->write_file_expand('nginx.conf', $CONF,
		SERVERS => join "\n", map { "server $_;" } @servers);
}

# A new configuration, while the workers of the one before have these requests
# in hand.
sub reload (@servers) {
	configure(@servers);
	$t->reload() or die "reload failed\n";
}

sub act ($args, $name = 'u') {
	my $r = control("/control?upstream=$name&$args");
	die "\"$args\": " . $r->status() . ' ' . $r->body() . "\n"
		unless $r->status() == 200;
}

# A request whose body a worker is waiting for: it is in its hands, since that
# has answered what was sent before it in one piece.
sub begin ($uri, $body, $type = 'text/plain') {
	my $h = http_start(uri => '/here', keepalive => 1,
		headers => { 'Content-Length' => undef },
		body => "POST $uri HTTP/1.1\r\nHost: localhost\r\nContent-Type: $type\r\n"
			. 'Content-Length: ' . length($body)
			. "\r\nConnection: close\r\n\r\n" . substr $body, 0, 1);
	$t->wait_for(sub { sysread $h->{over}, my $reply, 65_536 }, 5, 'a reply');
	$h->{rest} = substr $body, 1;

	return $h;
}

sub finish ($h) {
	syswrite $h->{over}, $h->{rest};
	return http_finish($h);
}

sub uploads ($n, $name = 'u') {
	return map { begin("/u/$name", 'body') } 1 .. $n;
}

# Who answers these uploads.
sub answers (@uploads) {
	my %by;
	$by{$_->body() =~ /\A(\d+)\z/ ? $1 : $_->status()}++ for map { finish($_) } @uploads;
	return join ' ', sort keys %by;
}

# After a test: the old workers are gone, and the file has these servers.
sub settle (@servers) {
	configure(@servers);
	$t->reload(old_gone => 1) or die "reload failed\n";
	$t->leak_baseline();
}

# A page whose parts are asked for one after the other.
sub page {
	my $asked = $hold->count();
	my $page = http_start(uri => '/page');
	$t->wait_for(sub { $hold->count() > $asked }, 5, 'page: the first part');
	reload(@ALL[0 .. 2]);
	act("server=$ALL[0]&down=");
	act($t->has_version('1.27.3') ? "remove=&server=$ALL[1]" : "server=$ALL[1]&down=");
	is(http_finish($page)->body(), '8083' x 3,
		'page: its later parts do not come from servers that are down, or gone');
	settle(@ALL[0 .. 2]);
}

sub states {
	my @uploads = uploads(16);
	reload(@ALL[0 .. 2]);
	act("server=$ALL[0]&down=");
	is(answers(splice @uploads, 0, 4), '8082 8083', 'states: down');
	act("server=$ALL[1]&drain=");
	is(answers(splice @uploads, 0, 4), '8083', 'states: draining');
	act("server=$ALL[0]&up=");
	is(answers(splice @uploads, 0, 4), '8081 8083', 'states: up');
	act("server=$ALL[$_]&down=") for 0, 2;
	is(answers(splice @uploads, 0, 4), '502', 'states: none is left');
	settle(@ALL[0 .. 2]);
}

sub members {
	my @uploads = uploads(30);
	reload(@ALL[0 .. 2]);
	act("remove=&server=$ALL[0]");
	is(answers(splice @uploads, 0, 6), '8082 8083', 'members: removed');
	act("add=&server=$ALL[3]");
	is(answers(splice @uploads, 0, 6), '8082 8083 8084', 'members: added');
	my ($peer) = grep { $t->logical($_->{name}) eq $ALL[1] }
		@{ get_json('/status?upstream=u')->{upstreams}{u}{peers} };
	act("id=$peer->{id}&server=$ALL[4]");
	is(answers(splice @uploads, 0, 6), '8083 8084 8085', 'members: moved');
	act("add=&server=$ALL[0]");
	act("remove=&server=$ALL[4]");
	is(answers(splice @uploads, 0, 6), '8081 8083 8084', 'members: back');
	is(http_request(uri => '/control?upstream=u&replace=', method => 'POST',
		map_ports => 1, body => "server $ALL[4];\nserver $ALL[0] down;\n",
		headers => { 'Content-Type' => 'text/plain' })->status(), 200,
		'members: a list');
	is(answers(splice @uploads, 0, 6), '8085', 'members: replaced');
	settle(@ALL[0 .. 2]);
}

# What only the old file has is the old workers' own.
sub other_servers {
	my @uploads = uploads(18);
	reload(@ALL[1 .. 3]);
	act("server=$ALL[1]&down=");
	is(answers(splice @uploads, 0, 6), '8081 8083',
		'other servers: those of the old file serve on');
	act("remove=&server=$ALL[3]");
	act("add=&server=$ALL[4]");
	is(answers(splice @uploads, 0, 6), '8081 8083 8085',
		'other servers: besides those that came since');
	act("add=&server=$ALL[0]");
	act("remove=&server=$ALL[0]");
	is(answers(splice @uploads, 0, 6), '8083 8085',
		'other servers: until they leave, too');
	settle(@ALL[0 .. 2]);
}

# The same server, which the files call otherwise.
sub other_names {
	settle('localhost:8081', $ALL[1]);
	my @uploads = uploads(12);
	reload(@ALL[0, 1]);
	act("server=$ALL[0]&down=");
	is(answers(splice @uploads, 0, 4), '8082', 'other names: down');
	act("server=$ALL[0]&up=");
	is(answers(splice @uploads, 0, 4), '8081 8082', 'other names: up');
	act("remove=&server=$ALL[0]");
	is(answers(splice @uploads, 0, 4), '8082', 'other names: removed');
	settle(@ALL[0 .. 2]);
}

# So many that leave are not remembered one by one: what the new configuration
# does not have is gone.
sub many {
	my @uploads = uploads(4);
	reload(@ALL[1, 2]);
	for my $i (1 .. 20) {
		act("add=&server=127.0.0.$i:8084");
		act("remove=&server=127.0.0.$i:8084");
	}
	act("remove=&server=$ALL[1]");
	act("add=&server=$ALL[4]");
	is(answers(@uploads), '8083 8085', 'many: the list of the new configuration');
	settle(@ALL[0 .. 2]);

	@uploads = uploads(40);
	reload(@ALL[0, 1]);
	act("add=&server=127.0.0.$_:8084") for 1 .. 30;
	is(answers(@uploads[0 .. 36]), '8081 8082 8083 8084', 'many: all that came');
	act("remove=&server=127.0.0.$_:8084") for 1 .. 30;
	is(answers(@uploads[37 .. 39]), '8081 8082', 'many: until they leave');
	settle(@ALL[0 .. 2]);
}

sub two_reloads {
	my @first = uploads(8);
	reload(@ALL[0 .. 2]);
	act("remove=&server=$ALL[0]");
	my @second = uploads(12);
	reload(@ALL[0 .. 2]);
	is(answers(splice @second, 0, 4), '8082 8083',
		'two reloads: what the second one dropped is dropped for its own workers');
	act("server=$ALL[1]&down=");
	is(answers(splice @second, 0, 4), '8083', 'two reloads: down');
	is(answers(splice @first, 0, 4), '8081 8083', 'two reloads: for the first ones, too');
	act("remove=&server=$ALL[2]");
	act("add=&server=$ALL[4]");
	is(answers(splice @second, 0, 4), '8085', 'two reloads: removed and added');
	is(answers(splice @first, 0, 4), '8081 8085', 'two reloads: for the first ones, too');
	settle(@ALL[0 .. 2]);
}

# A request that was under way, and chooses once more.
sub retries {
	my $h = http_start(uri => '/u/retried');
	$t->wait_for(sub { get_json('/status?upstream=retried')
		->{upstreams}{retried}{peers}[0]{active} }, 5, 'retries: a first try');
	reload(@ALL[0 .. 2]);
	act("server=$ALL[2]&down=", 'retried');
	is(http_finish($h)->body(), '8084', 'retries: the second try');
	settle(@ALL[0 .. 2]);
}

sub pools {
	my @uploads = uploads(6, 'pools');
	reload(@ALL[0 .. 2]);
	act("server=$ALL[0]&down=", 'first');
	is(answers(splice @uploads, 0, 2), '8082', 'pools: the first one is down');
	act("remove=&server=$ALL[1]", 'second');
	act("add=&server=$ALL[2]", 'second');
	is(answers(splice @uploads, 0, 2), '8083', 'pools: the second one has another server');
	act("server=$ALL[0]&up=", 'first');
	is(answers(splice @uploads, 0, 2), '8081', 'pools: the first one is back');
	settle(@ALL[0 .. 2]);
}

# What an old worker is told holds for the new ones when it says so.
sub told {
	my $form = 'application/x-www-form-urlencoded';
	my @change = map { begin('/control', $t->expand("upstream=u&server=127.0.0.1:"
		. "%%PORT_$_%%&down="), $form) } 8081, 8082;

	reload(@ALL[0 .. 2]);
	is(finish($change[0])->status(), 200, 'told: an old worker makes a change');
	is(http_get('/u/u')->body(), '8082', 'told: the next request knows');
	is(finish($change[1])->status(), 200, 'told: and another');
	is_deeply(burst(uri => '/u/u', n => 30)->{by_body}, { 8083 => 30 },
		'told: all requests know');
	settle(@ALL[0 .. 2]);
}

# What an old worker cannot know is to be asked again: a new one will answer.
sub refused {
	my $list = $t->expand('server 127.0.0.1:%%PORT_8081%%;');
	my @ROWS = (
		[ 'a list', '/control?upstream=u&replace=', $list, 'text/plain' ],
		[ 'a list to look at', '/control?upstream=u&replace=&dry_run=', $list,
			'text/plain' ],
		map { [ $_, '/control', $t->expand($_ =~ s/:(\d+)/:%%PORT_$1%%/r),
			'application/x-www-form-urlencoded' ] }
			'upstream=u&add=&server=127.0.0.1:8085',
			'upstream=u&remove=&server=127.0.0.1:8081',
			'upstream=u&down=&server=127.0.0.1:8084',
			'upstream=u&remove=&server=127.0.0.1:8084',
			'upstream=*&down=&server=127.0.0.1',
	);
	my @handles = map { my ($what, @request) = @$_; begin(@request) } @ROWS;

	reload(@ALL[0, 3]);
	for my $row (@ROWS) {
		my $r = finish(shift @handles);
		is($r->status() . ' ' . ($r->header('Retry-After') // '-') . ' ' . $r->body(),
			"503 1 nginx was reloaded meanwhile, try again\n", "refused: $row->[0]");
	}
	is_deeply([ map { $t->logical($_->{name}) }
		@{ get_json('/status?upstream=u')->{upstreams}{u}{peers} } ], [ @ALL[0, 3] ],
		'refused: nothing is changed');
	settle(@ALL[0 .. 2]);
}
