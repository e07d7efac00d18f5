package Bench::Row::Reload;

# Long replies and long work while nginx reloads again and again: none of it may
# be cut.

use v5.36;

use POSIX ();
use Time::HiRes qw/sleep/;

use Test::Nginx;

use Bench::Pairs qw/summary/;

use constant { SERVERS => 10_000, RELOADS => 30, BETWEEN => 0.35 };

my $CONF = <<'CONF';
%%TEST_GLOBALS%%
worker_processes 2;
events { worker_connections 1024; }
http {
    %%TEST_GLOBALS_HTTP%%
    access_log off;
    upstream_control_zone 64m;

    upstream many {
        zone many 64m;
        %%SERVERS%%
    }

    server {
        listen 127.0.0.1:8010;
        client_max_body_size 16m;
        client_body_buffer_size 16m;
        location = /control { upstream_control; }
        location = /status { upstream_status; }
    }
}
CONF

sub run ($class, $session) {
	my $how = SERVERS . ' servers, two workers, '. RELOADS . ' times HUP, one '
		. 'each ' . BETWEEN . ' s; one request after the other, each over a '
		. 'connection of its own. Replies that came whole / requests. '
		. '`bench/run.pl reload`';
	my %rows = (
		status => {
			name => 'status of ' . SERVERS . ' while nginx reloads',
			goal => '>= 1', how => "JSON of $how",
		},
		replace => {
			name => 'replacement of ' . SERVERS . ' while nginx reloads',
			goal => '>= 1', how => 'A list of as many, which differs in one, for '
				. "$how. A worker of an older configuration answers 503 to a "
				. 'replacement, which is a whole reply.',
		},
	);
	return map { +{ %$_, missing => 'needs the module' } }
		@rows{qw/status replace/} if $session->null();

	my $nginx = $session->nginx(module => 1, conf => $CONF, holes => {
		SERVERS => _list(0),
	});
	$session->start($nginx);

	my %client = map { $_ => _client($session, $_) } qw/status replace/;
	for (1 .. RELOADS) {
		$nginx->signal('HUP');
		sleep BETWEEN;
	}
	my %got = map { $_ => _finish($client{$_}) } keys %client;

	$session->stop($nginx);

	return map {
		+{ $rows{$_}->%*, unit => '', digits => 0, ratio => {
			summary($got{$_}{whole} / $got{$_}{asked})->%*,
			one => $got{$_}{whole}, other => $got{$_}{asked},
		} }
	} qw/status replace/;
}

sub _list ($first) {
	return join "\n", map { sprintf 'server 127.1.%d.%d:80;', $_ / 250, $_ % 250 }
		$first, 1 .. SERVERS - 1;
}

# A process that asks until it is told to end, and then says how it went.
sub _client ($session, $what) {
	my $file = $session->dir() . "/$what.count";
	my $pid = fork // die "fork: $!\n";
	return { pid => $pid, file => $file } if $pid;

	my $ends = 0;
	local $SIG{TERM} = sub { $ends = 1 };
	my @lists = map { _list($_ * SERVERS) } 0, 1;
	my ($asked, $whole) = (0, 0);
	while (!$ends) {
		$whole += $what eq 'status' ? _status() : _replace($lists[$asked % 2]);
		$asked++;
	}
	open my $fh, '>', $file or POSIX::_exit(1);
	print {$fh} "$whole $asked";
	close $fh;
	POSIX::_exit(0);
}

sub _finish ($client) {
	kill TERM => $client->{pid};
	waitpid $client->{pid}, 0;
	open my $fh, '<', $client->{file} or die "a client failed\n";
	my ($whole, $asked) = split ' ', <$fh>;
	die "a client did nothing\n" unless $asked;

	return { whole => $whole, asked => $asked };
}

sub _status () {
	my $r = http_get('/status?format=json', port => 8010, timeout => 60);

	return $r->status() == 200 && $r->body() =~ /\}\s*\z/ ? 1 : 0;
}

sub _replace ($list) {
	my $r = http_post('/control?upstream=many&replace=', $list, port => 8010,
		timeout => 60, headers => { 'Content-Type' => 'text/plain' });

	return $r->status() == 200 || $r->status() == 503 ? 1 : 0;
}

1;
